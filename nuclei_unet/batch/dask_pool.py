"""The workers of a Dask cluster. All its machines need the same code and the same folders."""

import contextlib
import functools
import hashlib
import logging
import platform
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nuclei_unet import files
from nuclei_unet.batch.pool import Lost, Pool
from nuclei_unet.errors import InputError

# Packages that shape results. Workers need the client's versions of them.
PACKAGES = ("numpy", "scipy", "scikit-image", "opencv-python-headless", "onnxruntime")
# A task is tried again if it raises: on a network file system a file may be away for a moment.
RETRIES = 2
PATIENCE = 10  # seconds without a result, before the reason is looked for
CONNECT = "10s"  # for a scheduler to answer


class DaskPool(Pool):
    """Workers of a Dask cluster."""

    def __init__(self, address: str):
        """Connect to the scheduler at an address.

        Raises InputError if nobody answers, its Python is of another version, or Dask is not installed here.
        """
        self.address, self._told = address, False
        self.client = _connected(address)
        print(f"on the Dask cluster of {address}, dashboard: {self.client.dashboard_link}", flush=True)

    @property
    def at_work(self) -> int:  # type: ignore[override]
        """The number of all workers' threads; workers that join late get their share."""
        return max(sum(self.client.nthreads().values()), 1)

    def run(self, function, tasks, common):
        """Yield (number of the task, result) in the order in which they end."""
        from distributed.comm.core import CommClosedError

        try:
            yield from super().run(functools.partial(_on_worker, function, stamp(function)), tasks, common)
        except (CancelledError, CommClosedError):
            raise self._gone() from None

    def _gone(self) -> InputError:
        return InputError(f"the Dask scheduler at {self.address} has gone; start it again, and this, too")

    def _submit(self, function, task, common):
        # Keys of their own: a result of another run at this scheduler is never taken.
        return self.client.submit(function, task, common, pure=False, retries=RETRIES)

    def _ended(self, running):
        import distributed

        while True:
            try:
                return distributed.wait(list(running), timeout=PATIENCE, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                if self.client.status != "running":
                    raise self._gone() from None
                if not self._told and not self.client.nthreads():
                    self._told = True
                    print(f"no worker is there; waiting for one: dask worker {self.address}", file=sys.stderr)

    def _result(self, future):
        from distributed.scheduler import KilledWorker

        try:
            return future.result()
        except KilledWorker:
            return Lost("ended worker after worker; for lack of memory perhaps")
        except ModuleNotFoundError as error:
            raise InputError(f"the cluster has no package {error.name}; install there what is installed here") from None
        except RuntimeError as error:
            if "deserialization" not in str(error):
                raise
            raise InputError(
                "the cluster cannot read what it is to do; start scheduler and workers where this code is installed"
            ) from None

    def close(self):
        """Leave the cluster. Its workers finish what they have begun, and get nothing more."""
        self.client.close(timeout=5)

    def stop(self, wait):
        """Leave the cluster."""
        self.close()


def _connected(address: str):
    """Return a client of the scheduler at an address."""
    try:
        import distributed
    except ModuleNotFoundError:
        raise InputError(f"{address}: a Dask cluster needs Dask here, too; pip install 'nuclei-unet[dask]'") from None
    # We say ourselves what matters. Dask gives many of its loggers a level of their own.
    for name in [*logging.root.manager.loggerDict, "tornado.application"]:
        if name.split(".")[0] in ("distributed", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        client = distributed.Client(address, timeout=CONNECT)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:  # Dask checks addresses late
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise InputError(f"{address}: no Dask scheduler answers ({reason}); start one: dask scheduler") from None
    theirs = client.run_on_scheduler(platform.python_version)
    if theirs.split(".")[:2] != platform.python_version().split(".")[:2]:
        client.close(timeout=5)
        raise InputError(f"{address}: runs Python {theirs}, this is {platform.python_version()}; use the same")
    return client


def _on_worker(function: Callable, expected: dict[str, str], task: Any, common: Any) -> Any:
    """Do one task on a worker."""
    here = stamp(function)
    for name, wanted in expected.items():
        if here.get(name) != wanted:
            raise InputError(
                f"a worker on {platform.node()} has another {name} ({here.get(name)}) than this machine ({wanted}); "
                "install the same versions there"
            )
    # If the scheduler takes a worker for lost that is not, two of them write the same file.
    files.tell_apart()
    # One at a time, and each has all of the worker's threads: a network is as large as the images that it works on.
    with _TURN:
        return function(task, common)


_TURN = threading.Lock()


@functools.cache
def stamp(function: Callable) -> dict[str, str]:
    """Return what has to be equal on all machines: versions of packages, and the code that the function is from."""
    versions = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    for name in sorted({"nuclei_unet", function.__module__.split(".")[0]}):
        digest = hashlib.sha256()
        folder = Path(sys.modules[name].__file__).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder).as_posix()} {files.file_digest(path)}\n".encode())
        versions[f"code of {name}"] = digest.hexdigest()[:12]
    return versions
