"""Filling a store's rows from many files: by processes that read and compress, each with memory for one field."""

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

MOST = 4  # processes: reading and compressing keeps about so many cores busy before the disk is
SMALL = 2**28  # bytes of fields below which processes take longer to start than they save

Put = Callable[[str, int, np.ndarray], None]  # put("high" | "low", row, field)
Fill = Callable[[Any, Put], Counter]  # of a job: put its rows, and say what was counted on the way


def write_rows(writer: Writer, jobs: Sequence[Any], make: Callable[[], Fill], workers: int | None = None) -> Counter:
    """Call `fill(job, put)`, with one `fill = make()` in each of some processes, for all jobs; the sum of the counts.

    Jobs and `make` can be pickled. Rows of one file belong into one job, so that it is opened once. The keys of counts
    are texts, or tuples of them. By default there is a process for each core, at most MOST, and none beside this one
    where the store is small. What is written does not depend on their number. Jobs that a killed writer of the same
    plan has finished are passed over. An exception of `fill` or `make` is raised here.
    """
    if workers is None:
        size = 4 * sum(np.prod(chunks.shape) for chunks in (writer.high, writer.low))
        workers = min(MOST, len(os.sched_getaffinity(0))) if size > SMALL else 1
    left = [number for number in range(len(jobs)) if number not in writer.done]
    processes = min(workers, len(left))
    results = _in_processes(writer, jobs, left, make, processes) if processes > 1 else _here(writer, jobs, left, make)
    with bar() as progress:
        task = progress.add_task("fields", total=writer.high.shape[0] + writer.low.shape[0], completed=len(writer.sums))
        for number, sums, counts in results:
            writer.note(number, sums, counts)
            progress.advance(task, len(sums))
    return sum((writer.done[number] for number in range(len(jobs))), Counter())


Result = tuple[int, dict[str, str], Counter]  # a job's number, the checksums of the files that it wrote, its counts


class _Worker:
    """One process's `fill`, and where it puts rows."""

    def __init__(self, folder: Path, shapes: dict[str, tuple[int, ...]], make: Callable[[], Fill]):
        self.folder, self.shapes, self.make = folder, shapes, make
        self.fill: Fill | None = None

    def run(self, number: int, job: Any) -> Result:
        self.fill = self.fill or self.make()
        sums: dict[str, str] = {}
        parts = {part: Chunks(self.folder, f"{part}/field", shape, sums) for part, shape in self.shapes.items()}
        counts = self.fill(job, lambda part, row, field: parts[part].__setitem__(row, field))
        return number, sums, counts


def _of(writer: Writer, make: Callable[[], Fill]) -> _Worker:
    return _Worker(writer.folder, {"high": writer.high.shape, "low": writer.low.shape}, make)


def _here(writer: Writer, jobs: Sequence[Any], left: list[int], make: Callable[[], Fill]) -> Iterator[Result]:
    worker = _of(writer, make)
    for number in left:
        yield worker.run(number, jobs[number])


def _in_processes(
    writer: Writer, jobs: Sequence[Any], left: list[int], make: Callable[[], Fill], processes: int
) -> Iterator[Result]:
    """The jobs' results as they come; a few jobs wait, so that memory does not grow with their number."""
    context = multiprocessing.get_context("forkserver")  # a fork would copy the locks of libraries' threads
    others = multiprocessing.active_children()
    waiting: set[Future[Result]] = set()
    with ProcessPoolExecutor(processes, context, _start, (_of(writer, make), writer.partial)) as pool:
        try:
            for number in left:
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
                    process.kill()  # else it would end its job first
            raise


_worker: _Worker


def _start(worker: _Worker, partial: Path) -> None:
    """Make this process a worker: it ends with its parent, and no other writer begins before it has."""
    global _worker
    _worker = worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends us
    parent = multiprocessing.parent_process()
    assert parent is not None
    take_lock(os.open(partial / "workers", os.O_RDWR), 0, shared=True)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _run(number: int, job: Any) -> Result:
    return _worker.run(number, job)
