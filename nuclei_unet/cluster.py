"""Do the same with many things: in this process, in several processes of this machine, or on a Dask cluster.

What is done must not depend on where: a function gets a task and what is the same for all tasks, writes files that it
names itself, and returns little. All machines of a cluster need the same code and the same folders.
"""

import contextlib
import functools
import hashlib
import logging
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from nuclei_unet import files
from nuclei_unet.errors import InputError

# Where a Dask scheduler listens; Dask's own name for it.
VARIABLE = "DASK_SCHEDULER_ADDRESS"
# Packages that shape results. Workers need the client's versions of them.
PACKAGES = ("numpy", "scipy", "scikit-image", "opencv-python-headless", "onnxruntime", "tensorflow", "keras")
# A task is tried again if it raises: on a network file system a file may be away for a moment.
RETRIES = 2
# A task that has ended so many workers is given up: it needs more memory than they have, perhaps.
DEATHS = 3
PATIENCE = 10  # seconds without a result, before the reason is looked for
CONNECT = "10s"  # for a scheduler to answer
# Ctrl-C reaches all processes of a terminal; the first one decides.
PRELOAD = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"


@dataclass(frozen=True)
class Lost:
    """In place of a task's result: it ended each worker that tried it."""

    reason: str


class Pool(Protocol):
    """Where tasks are done."""

    def run(self, function: Callable[[Any, Any], Any], tasks: Iterable, common: Any) -> Iterator[tuple[int, Any]]:
        """Yield (number of the task, function(task, common)) in the order in which they end.

        Only a few tasks are ahead of what was yielded, so there may be any number of them. Errors of the function are
        raised here.
        """

    def stop(self) -> None:
        """Stop at once, whatever is being done."""


def address(given: str | None) -> str | None:
    """Return the address of the scheduler to use: the given one, or the one that the environment names, or none."""
    return given or os.environ.get(VARIABLE) or None


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
    """Yield where to do tasks: at `scheduler`, or in `jobs` processes, or in `threads` threads of this process.

    Parameters
    ----------
    jobs : processes on this machine; with more than one, a Dask cluster of its own that ends with the block
    scheduler : address of a Dask scheduler, such as tcp://host:8786
    threads : threads of this process, if there is one job and no scheduler

    Raises
    ------
    InputError : nobody answers at the address, or its Python is of another version
    """
    if scheduler:
        with _connected(scheduler) as client:
            print(f"on the Dask cluster of {scheduler}, dashboard: {client.dashboard_link}", flush=True)
            yield _Dask(client)
    elif jobs > 1:
        with _started(jobs) as client:
            yield _Dask(client)
    else:
        pool = _Here(threads)
        try:
            yield pool
        finally:
            pool.close()


class _Here:
    """Threads of this process. One thread beside the main one, at least: Ctrl-C then is at once."""

    def __init__(self, threads: int):
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def run(self, function, tasks, common):
        waiting = iter(enumerate(tasks))
        running: dict[Future, int] = {}
        while True:
            for number, task in waiting:
                running[self._pool.submit(function, task, common)] = number
                if len(running) >= 2 * self.threads:
                    break
            if not running:
                return
            ready, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                number = running.pop(future)
                yield number, future.result()

    def stop(self):
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self):
        self._pool.shutdown(cancel_futures=True)


class _Dask:
    """Workers of a Dask cluster."""

    def __init__(self, client):
        self.client = client
        self.address = client.scheduler.address

    def run(self, function, tasks, common):
        import distributed
        from distributed.comm.core import CommClosedError

        call = functools.partial(_on_worker, function, common, stamp(function))
        waiting = iter(enumerate(tasks))
        running: dict[distributed.Future, tuple[int, Any]] = {}
        # Dask blames the death of a worker on all tasks that it had. Those are done again, each with nothing beside it.
        suspects: list[tuple[int, Any]] = []
        alone: int | None = None
        told, gone = False, InputError(f"the Dask scheduler at {self.address} has gone; start it again, and this, too")

        def submit(number: int, task: Any) -> None:
            # Keys of their own: a result of another run at this scheduler is never taken.
            running[self.client.submit(call, task, pure=False, retries=RETRIES)] = (number, task)

        while True:
            try:
                if suspects:
                    if not running:
                        alone, task = suspects.pop(0)
                        submit(alone, task)
                elif alone is None:
                    # Workers that join late get their share.
                    ahead = 2 * max(sum(self.client.nthreads().values()), 1)
                    for number, task in waiting:
                        submit(number, task)
                        if len(running) >= ahead:
                            break
                if not running:
                    return
                ready = distributed.wait(list(running), timeout=PATIENCE, return_when="FIRST_COMPLETED").done
                ended = [(*running.pop(future), self._result(future)) for future in ready]
            except TimeoutError:
                if self.client.status != "running":
                    raise gone from None
                if not told and not self.client.nthreads():
                    told = True
                    print(f"no worker is there; waiting for one: dask worker {self.address}", file=sys.stderr)
                continue
            except (CancelledError, CommClosedError):
                raise gone from None
            for number, task, result in ended:
                if isinstance(result, Lost) and number != alone:
                    suspects.append((number, task))
                else:
                    yield number, result
                if number == alone:
                    alone = None

    @staticmethod
    def _result(future) -> Any:
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return Lost(f"ended {DEATHS + 1} workers, one after the other; for lack of memory perhaps")
        except ModuleNotFoundError as error:
            raise InputError(f"the cluster has no package {error.name}; install there what is installed here") from None
        except RuntimeError as error:
            if "deserialization" not in str(error):
                raise
            raise InputError(
                "the cluster cannot read what it is to do; start scheduler and workers where this code is installed"
            ) from None

    def stop(self):
        """Kill workers that are ours. Those of a cluster finish what they have begun, and get nothing more."""
        for nanny in getattr(self.client.cluster, "workers", {}).values():
            if nanny.process is not None and nanny.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(nanny.process.pid, 9)


@contextlib.contextmanager
def _connected(address: str):
    import distributed

    _quiet()
    try:
        client = distributed.Client(address, timeout=CONNECT)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:  # Dask checks addresses late
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"{address}: no Dask scheduler answers ({reason}); start one: dask scheduler") from None
    try:
        theirs = client.run_on_scheduler(platform.python_version)
        if theirs.split(".")[:2] != platform.python_version().split(".")[:2]:
            raise InputError(f"{address}: runs Python {theirs}, this is {platform.python_version()}; use the same")
        yield client
    finally:
        client.close(timeout=5)


@contextlib.contextmanager
def _started(jobs: int):
    """Start workers on this machine, for us alone: others would need the certificate that is made for this run."""
    import dask
    import distributed

    _quiet()
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": DEATHS}),
        distributed.LocalCluster(
            n_workers=jobs,
            threads_per_worker=1,
            # A worker needs for an image what it needs; the system says when there is no more.
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            security=True,
            silence_logs=logging.CRITICAL,
            preload=[PRELOAD],
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _quiet() -> None:
    """Say what matters ourselves."""
    # Dask gives many of its loggers a level of their own.
    for name in [*logging.root.manager.loggerDict, "tornado.application"]:
        if name.split(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _on_worker(function: Callable, common: Any, expected: dict[str, str], task: Any) -> Any:
    """Do one task on a worker."""
    found = stamp(function)
    wrong = [name for name in expected if expected[name] != found.get(name)]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"a worker on {platform.node()} has another {name} ({found.get(name)}) than this machine "
            f"({expected[name]}); install the same versions there"
        )
    # If the scheduler takes a worker for lost that is not, two of them write the same file.
    files.tell_apart()
    # One at a time, and each has all of the worker's threads: a network is as large as the images that it works on.
    with _TURN:
        return function(task, common)


_TURN = threading.Lock()


def stamp(function: Callable) -> dict[str, str]:
    """Return what has to be equal on all machines: versions of packages, and the code that the function is from."""
    return _stamp(function.__module__.split(".")[0])


@functools.cache
def _stamp(package: str) -> dict[str, str]:
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    for name in sorted({"nuclei_unet", package}):
        digest = hashlib.sha256()
        folder = Path(sys.modules[name].__file__).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder).as_posix()} {files.file_digest(path)}\n".encode())
        found[f"code of {name}"] = digest.hexdigest()[:12]
    return found


def threads() -> int | None:
    """Return how many threads this process may use: as a Dask worker its own; otherwise None, which is unknown."""
    worker = sys.modules.get("distributed.worker")
    if worker is None:
        return None
    try:
        return worker.get_worker().state.nthreads
    except ValueError:
        return None
