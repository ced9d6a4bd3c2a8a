"""A Dask cluster of real processes on this machine."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.process import free_port
from tests import ROOT

CODE = "from distributed.cli import dask_scheduler, dask_worker; dask_{0}.main()"


def start(kind: str, *arguments: object, cwd: Path) -> subprocess.Popen:
    """Start a scheduler or a worker of the code in a folder."""
    command = [sys.executable, "-c", CODE.format(kind), *map(str, arguments), "--no-dashboard"]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def cluster(code: Path = ROOT) -> Iterator[tuple[str, Callable[[], subprocess.Popen]]]:
    """Yield the address of a scheduler, and a function that starts one more worker there; all end with the block."""
    address = f"tcp://127.0.0.1:{free_port()}"
    processes = [start("scheduler", "--host", address, cwd=code)]

    def worker() -> subprocess.Popen:
        processes.append(start("worker", address, "--no-nanny", "--nthreads", 1, cwd=code))
        return processes[-1]

    try:
        yield address, worker
    finally:
        for process in processes:
            process.kill()
            process.wait()
