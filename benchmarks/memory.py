"""How long does a command take, and how much memory do its processes?"""

import contextlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psutil


class Watched(NamedTuple):
    """A command that has ended: seconds, and the peak memory of its process and of its largest child, in bytes."""

    seconds: float
    own: int
    child: int  # 0 if there was none


def watch(command: Sequence[str], log: Path, **options) -> Watched:
    """Run a command, and look at its memory ten times a second; what it prints goes to `log`.

    `options` are those of `subprocess.Popen`. Exits with the end of the log if the command fails.
    """
    started, peaks = time.perf_counter(), {}
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, **options) as running:
        first = psutil.Process(running.pid)
        while running.poll() is None:
            with contextlib.suppress(psutil.Error):  # one of them has just ended
                for process in (first, *first.children(recursive=True)):
                    peaks[process.pid] = max(peaks.get(process.pid, 0), process.memory_info().rss)
            time.sleep(0.1)
    if running.returncode:
        raise SystemExit(f"error: {' '.join(command)}: exit code {running.returncode}\n{log.read_text()[-2000:]}")
    own = peaks.pop(running.pid, 0)
    return Watched(time.perf_counter() - started, own, max(peaks.values(), default=0))
