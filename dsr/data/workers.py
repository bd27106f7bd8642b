"""Filling the rows of a store from many files: by processes that read and compress, one field in memory each."""

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from dsr.data.fields import Chunks
from dsr.data.writer import Writer
from dsr.files import take_lock
from dsr.progress import bar

MAX_PROCESSES = (
    4  # processes: reading and compressing keeps about this many cores busy before the disk becomes the limit
)
SMALL = 2**28  # bytes of fields below which processes take longer to start than they save

Put = Callable[[str, int, np.ndarray], None]  # put("high" | "low", row, field)
Fill = Callable[[Any, Put], Counter]  # fill(job, put): puts the rows of a job and returns what it counted


def write_rows(writer: Writer, jobs: Sequence[Any], make: Callable[[], Fill], workers: int | None = None) -> Counter:
    """Call `fill(job, put)` for all jobs, with one `fill = make()` per process; return the sum of the counts.

    Jobs and `make` must be picklable. Rows of one file belong in one job, so that it is opened once. The keys of counts
    are strings, or tuples of them. By default there is a process per core, at most MAX_PROCESSES, or only this one if
    the store is small. What is written does not depend on their number. Jobs that a killed writer of the same plan has
    finished are skipped. An exception in `fill` or `make` is raised here.
    """
    if workers is None:
        size = 4 * sum(np.prod(chunks.shape) for chunks in (writer.high, writer.low))
        workers = min(MAX_PROCESSES, len(os.sched_getaffinity(0))) if size > SMALL else 1
    remaining = [number for number in range(len(jobs)) if number not in writer.done]
    processes = min(workers, len(remaining))
    results = (
        _in_processes(writer, jobs, remaining, make, processes)
        if processes > 1
        else _in_this_process(writer, jobs, remaining, make)
    )
    with bar() as progress:
        task = progress.add_task("fields", total=writer.high.shape[0] + writer.low.shape[0], completed=len(writer.sums))
        for number, sums, counts in results:
            writer.note(number, sums, counts)
            progress.advance(task, len(sums))
    return sum((writer.done[number] for number in range(len(jobs))), Counter())


Result = tuple[int, dict[str, str], Counter]  # number of the job, checksums of the files that it wrote, its counts


class _Worker:
    """The `fill` of one process, and where it puts rows."""

    def __init__(self, folder: Path, shapes: dict[str, tuple[int, ...]], make: Callable[[], Fill]):
        self.folder, self.shapes, self.make = folder, shapes, make
        self.fill: Fill | None = None

    def run(self, number: int, job: Any) -> Result:
        self.fill = self.fill or self.make()
        sums: dict[str, str] = {}
        parts = {part: Chunks(self.folder, f"{part}/field", shape, sums) for part, shape in self.shapes.items()}
        counts = self.fill(job, lambda part, row, field: parts[part].__setitem__(row, field))
        return number, sums, counts


def _worker_of(writer: Writer, make: Callable[[], Fill]) -> _Worker:
    return _Worker(writer.folder, {"high": writer.high.shape, "low": writer.low.shape}, make)


def _in_this_process(
    writer: Writer, jobs: Sequence[Any], remaining: list[int], make: Callable[[], Fill]
) -> Iterator[Result]:
    worker = _worker_of(writer, make)
    for number in remaining:
        yield worker.run(number, jobs[number])


def _in_processes(
    writer: Writer, jobs: Sequence[Any], remaining: list[int], make: Callable[[], Fill], processes: int
) -> Iterator[Result]:
    """The results of jobs as they complete; only a few are submitted ahead, to limit memory."""
    context = multiprocessing.get_context("forkserver")  # a fork would copy the locks of libraries' threads
    others = multiprocessing.active_children()
    waiting: set[Future[Result]] = set()
    with ProcessPoolExecutor(processes, context, _start, (_worker_of(writer, make), writer.partial)) as pool:
        try:
            for number in remaining:
                if len(waiting) >= 2 * processes:
                    ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in ready)
                waiting.add(pool.submit(_run, number, jobs[number]))
            while waiting:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in ready)
        except BrokenProcessPool as error:
            raise RuntimeError("a process that read fields was killed (is there enough memory?)") from error
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.kill()  # otherwise it would finish its job first
            raise


_worker: _Worker


def _start(worker: _Worker, partial: Path) -> None:
    """Make this process a worker: it ends with its parent, and no other writer starts before it has ended."""
    global _worker
    _worker = worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends us
    parent = multiprocessing.parent_process()
    assert parent is not None
    take_lock(os.open(partial / "workers", os.O_RDWR), 0, shared=True)
    threading.Thread(target=_exit_with, args=(parent,), daemon=True).start()


def _exit_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _run(number: int, job: Any) -> Result:
    return _worker.run(number, job)
