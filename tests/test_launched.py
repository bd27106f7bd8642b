"""The check that a run leaves no shared memory behind: what others use is not counted."""

import mmap
import os
import subprocess
from pathlib import Path

from tests.launched import unused_shared_memory


def test_only_what_no_living_process_uses_counts_as_left():
    with subprocess.Popen(["true"]) as dead:
        pass
    here = Path("/dev/shm")
    named, left = here / f"dsr-test-{os.getpid()}", here / f"dsr-test-{dead.pid}"
    try:
        for file in (named, left):
            file.write_bytes(bytes(8))
        assert unused_shared_memory({named, left, here / "dsr-test-nowhere"}) == {left}
        with left.open("r+b") as opened:
            assert unused_shared_memory({left}) == set()
            mapped = mmap.mmap(opened.fileno(), 8)
        assert unused_shared_memory({left}) == set()
        mapped.close()
        assert unused_shared_memory({left}) == {left}
    finally:
        named.unlink(missing_ok=True)
        left.unlink(missing_ok=True)
