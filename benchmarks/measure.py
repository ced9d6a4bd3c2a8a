"""What the benchmarks share: how long a command takes, how much memory its processes use, tables."""

import contextlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import psutil


class Measured(NamedTuple):
    """A command that has ended: seconds, and the peak memory of its process and of its largest child, in bytes."""

    seconds: float
    memory: int
    child_memory: int  # 0 if there was none


def measure(command: Sequence[object], log: Path, **options) -> Measured:
    """Run a command, and look at its memory ten times a second; what it prints goes to `log`.

    `options` are those of `subprocess.Popen`. Exits with the end of the log if the command fails.
    """
    started, peaks = time.perf_counter(), {}
    command = [str(part) for part in command]
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, **options) as running:
        first = psutil.Process(running.pid)
        while running.poll() is None:
            with contextlib.suppress(psutil.Error):  # one of them has just ended
                for process in (first, *first.children(recursive=True)):
                    peaks[process.pid] = max(peaks.get(process.pid, 0), process.memory_info().rss)
            time.sleep(0.1)
    seconds = time.perf_counter() - started
    if running.returncode:
        raise SystemExit(f"error: {' '.join(command)}: exit code {running.returncode}\n{log.read_text()[-2000:]}")
    return Measured(seconds, peaks.pop(running.pid, 0), max(peaks.values(), default=0))


def write(path: Path, pixels: np.ndarray) -> None:
    """Write grey or RGB pixels, uint8 (H, W) or (H, W, 3), as PNG, in a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def save_table(path: Path, *parts: str | pd.DataFrame, digits: str = ".2f") -> None:
    """Write paragraphs and tables as Markdown, and print them."""
    shown = (part if isinstance(part, str) else part.to_markdown(floatfmt=digits) for part in parts)
    text = "\n\n".join(shown)
    path.write_text(text + "\n")
    print(text, flush=True)
