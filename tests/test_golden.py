"""Two short runs have the losses that they had before: a change of numerics is seen, even one that keeps runs equal."""

import pytest

from tests import golden


@pytest.mark.slow
def test_the_losses_are_those_of_before(tiny_store, tmp_path):
    if golden.kind() not in golden.known():
        pytest.skip(f"no golden values for {golden.kind()}: `python -m tests.golden` adds those of the code as it is")
    assert golden.losses(tmp_path, tiny_store) == golden.known()[golden.kind()]
