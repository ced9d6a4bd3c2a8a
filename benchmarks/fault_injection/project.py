"""A copy of the project in which faults are provoked, and the table of all faults."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline import layout, params
from pipeline.process import OUTSIDE, environment

EPOCHS = 8
SMALL = {
    "download.source": "synthetic",
    "download.synthetic.train": 24,
    "download.synthetic.test": 4,
    "preprocess.validation_fraction": 0.4,
    "train.crop_size": 128,
    "train.batch_size": 4,
    "train.epochs": EPOCHS,
    "train.steps_per_epoch": 10,
    "train.model.encoder": "none",
    "train.model.filters": [16, 32, 64],
    "train.model.dropout": [0, 0, 0.2],
    "visualize.examples": 1,
    "visualize.dpi": 40,
}


class Failed(Exception):
    """A fault had an effect that it must not have."""


class Project:
    """A copy of the project in which commands run, each in a process group of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = environment(without=OUTSIDE)

    def copy(self, name: str) -> "Project":
        """Copy the folder beside itself."""
        return Project(shutil.copytree(self.folder, self.folder.with_name(name), symlinks=True).resolve())

    def set(self, values: dict[str, object]) -> None:
        """Change parameters."""
        path = self.folder / layout.PARAMS
        path.write_text(params.override(path.read_text(), values))

    def start(self, *command: str, **options) -> subprocess.Popen:
        """Start a command; what it prints goes to a file of its own."""
        self.last_log = self.folder / f"command-{time.monotonic_ns()}.log"
        with self.last_log.open("w") as log:
            options |= {"cwd": self.folder, "env": self.environment, "stdout": log, "stderr": log}
            return subprocess.Popen(command, start_new_session=True, **options)

    def log(self) -> str:
        """Return what the last command printed."""
        return self.last_log.read_text()

    def run(self, *command: str, **options) -> int:
        """Run a command to its end; return its exit code."""
        return self.start(*command, **options).wait()

    def repro(self, *arguments: str, says: str = "") -> str:
        """Run `dvc repro`, which must succeed and print the text `says`; return what it printed."""
        if self.run("dvc", "repro", *arguments):
            raise Failed(f"dvc repro failed: {self.error()}")
        if says not in self.log():
            raise Failed(f"does not say: {says}")
        return self.log()

    def refused(self, *command: str, says: str, **options) -> str:
        """Run a command that has to fail with one clear line; return that line."""
        code = self.run(*command, **options)
        if not code:
            raise Failed("was not noticed")
        if "Traceback" in self.log() or not re.search(says, self.error()):
            raise Failed(f"no clear line: {self.error()}")
        return self.error()

    def error(self) -> str:
        """Return the last command's error line."""
        lines = [line for line in self.log().splitlines() if line.lower().startswith("error")] or [self.log()[-300:]]
        return lines[0].replace(str(self.folder), ".").replace("|", "/")

    def interrupt(self, after: Callable[[], object], kind: signal.Signals, *stages: str) -> None:
        """Start `dvc repro`, wait for something, and send a signal to it and all that it started."""
        process = self.start("dvc", "repro", *stages)
        wait_for(after, process)
        os.killpg(process.pid, kind)
        process.wait()
        # A process that ignores the signal would disturb the rerun.
        wait_for(lambda: not alive(process.pid))

    def epochs_kept(self) -> int:
        """Return the number of epochs that `dvc repro` has printed."""
        return len(re.findall(r"^epoch +\d+/\d+ ", self.log(), re.MULTILINE))


def alive(group: int) -> bool:
    """Whether a process group has members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 180) -> None:
    """Wait until something is true, or `process` has ended."""
    end = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            return
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:.0f} s in vain")
        time.sleep(0.02)


class Fault(NamedTuple):
    """How to provoke a fault. It says what happened, and raises `Failed` if that must not be."""

    provoke: Callable[[Project], str]
    start: str  # `fresh`: in a copy in which nothing ran; `prepared`: with data; `undisturbed`: with all outputs
    outputs: bool  # whether all outputs are there afterwards, with the hashes of the undisturbed run


FAULTS: dict[str, Fault] = {}


def fault(name: str, start: str = "prepared", outputs: bool = True):
    """Add a function to the table."""

    def add(function):
        FAULTS[name] = Fault(function, start, outputs)
        return function

    return add
