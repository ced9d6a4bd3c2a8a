"""Do the same with many things: in this process, in several processes of this machine, or on a Dask cluster.

What is done must not depend on where: a function gets a task and what is the same for all tasks, writes files that it
names itself, and returns little.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

from nuclei_unet.errors import InputError

# Where a Dask scheduler listens; Dask's own name for it.
VARIABLE = "DASK_SCHEDULER_ADDRESS"


@dataclass(frozen=True)
class Lost:
    """In place of a task's result: it ended each worker that tried it."""

    reason: str


class Pool:
    """Where tasks are done. Each kind says how one is submitted, waited for, and what became of it."""

    at_work = 1  # tasks at the same time
    _pool: Any = None

    def run(self, function: Callable[[Any, Any], Any], tasks: Iterable, common: Any) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, function(task, common)) in the order in which they end.

        Only a few tasks are ahead of what was yielded, so there may be any number of them. Errors of the function are
        raised here.
        """
        waiting = iter(enumerate(tasks))
        running: dict[Any, tuple[int, Any]] = {}
        # Any of the tasks at work may have ended their worker. Those are done again, each with nothing beside it.
        suspects: deque[tuple[int, Any]] = deque()
        alone: int | None = None
        while True:
            if suspects:
                if not running:
                    alone, task = suspects.popleft()
                    running[self._submit(function, task, common)] = alone, task
            elif alone is None:
                while len(running) < 2 * self.at_work and (item := next(waiting, None)):
                    running[self._submit(function, item[1], common)] = item
            if not running:
                return
            for future in self._ended(running):
                number, task = running.pop(future)
                result = self._result(future)
                if isinstance(result, Lost) and number != alone:
                    suspects.append((number, task))
                    continue
                if number == alone:
                    alone = None
                yield number, result

    def _submit(self, function: Callable, task: Any, common: Any) -> Any:
        return self._pool.submit(function, task, common)

    def _ended(self, running: Iterable) -> Iterable:
        return wait(running, return_when=FIRST_COMPLETED).done

    def _result(self, future: Any) -> Any:
        return future.result()

    def close(self) -> None:
        """End when everything is done."""
        self._pool.shutdown()

    def stop(self, wait: bool) -> None:
        """Begin nothing more, and stop what is being done. Threads cannot be stopped: `wait` for them, or not."""
        self._pool.shutdown(wait=wait, cancel_futures=True)


def address(given: str | None) -> str | None:
    """Return the address of the scheduler to use: the given one, or the one that the environment names, or none."""
    return given or os.environ.get(VARIABLE) or None


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int | None:
    """Return how many threads this process may use: as a Dask worker its own; otherwise None, which is unknown."""
    worker = sys.modules.get("distributed.worker")
    if worker is None:
        return None
    try:
        return worker.get_worker().state.nthreads
    except ValueError:
        return None


def check_seen(folder: Path) -> None:
    """Raise InputError if a folder is not there, as on a worker whose machine has other folders."""
    if not folder.is_dir():
        raise InputError(f"{folder}: a worker does not see it; all machines need the same folders")


def in_order(results: Iterator[tuple[int, Any]]) -> Iterator[Any]:
    """Yield results in the order of their tasks."""
    early: dict[int, Any] = {}
    expected = 0
    for number, result in results:
        early[number] = result
        while expected in early:
            yield early.pop(expected)
            expected += 1


@contextlib.contextmanager
def open_pool(jobs: int = 1, scheduler: str | None = None, threads: int = 1) -> Iterator[Pool]:
    """Yield where to do tasks: at `scheduler`, the address of a Dask scheduler such as tcp://host:8786, or in `jobs`
    processes, which end with the block, or, if that is one, in `threads` threads of this process.

    Raises InputError if nobody answers at the address, its Python is of another version, or Dask is not installed.
    """
    if scheduler:
        from nuclei_unet.batch.dask_pool import DaskPool  # an extra

        pool: Pool = DaskPool(scheduler)
    else:
        pool = _Processes(jobs) if jobs > 1 else _Threads(threads)
    try:
        yield pool
    except BaseException as error:
        # A thread that still writes would leave something behind; but Ctrl-C ends the process at once.
        pool.stop(wait=not isinstance(error, KeyboardInterrupt))
        raise
    pool.close()


class _Threads(Pool):
    """Threads of this process. One thread beside the main one, at least: Ctrl-C then is at once."""

    def __init__(self, count: int):
        self.at_work, self._pool = count, ThreadPoolExecutor(count)


class _Processes(Pool):
    """Processes of this machine. If one dies, all are started anew; that is how the library does it."""

    def __init__(self, jobs: int):
        self.at_work, self._pool = jobs, None

    def _submit(self, function, task, common):
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork would copy threads that hold locks
            theirs, self._alive = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(self.at_work, context, _begin, (theirs,))
        try:
            return super()._submit(function, task, common)
        except BrokenProcessPool as error:
            failed: Future = Future()
            failed.set_exception(error)
            return failed

    def _result(self, future):
        try:
            return future.result()
        except BrokenProcessPool:
            self._pool = None
            return Lost("ended the process that worked at it, twice; for lack of memory perhaps")

    def close(self):
        if self._pool:
            self._pool.shutdown()

    def stop(self, wait):
        if self._pool:
            self._alive.close()
            self._pool.shutdown(cancel_futures=True)


def _begin(alive: Connection) -> None:
    """Let a worker live as long as its parent holds the other end of a pipe, however that one ends."""
    # Ctrl-C reaches all processes of a terminal; the first one decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=lambda: os._exit(1) if alive.poll(None) else None, daemon=True).start()
