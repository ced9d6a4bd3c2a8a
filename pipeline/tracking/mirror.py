"""The mirror that stages write to: MLflow gets what it accepts, and a stage goes on even if MLflow fails.

Files come first. If MLflow is down, slow or full, results are still in reports/ and models/, and one warning says so.
What could not be sent is sent as soon as a later epoch, stage or `make sync` gets through.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import machine
from pipeline.dataset import processed
from pipeline.params import Params
from pipeline.report.scores import DECISIVE
from pipeline.tracking import adaptation
from pipeline.tracking.machine_use import MachineUse
from pipeline.tracking.run import Run

TRIES = 5  # that may fail in one stage: at ten seconds each, less than a minute
PAUSE_SECONDS = 60  # to wait after a failed try


class Mirror:
    """Runs one call after the other. A call that fails stays in the queue and is tried again with a later one."""

    def __init__(self):
        self.queue: deque[Callable[[], None]] = deque()
        self.failures, self.next_try = 0, 0.0

    def do(self, action: Callable[..., None], *arguments, at_once: bool = False) -> bool:
        """Queue a call and work through the queue; return whether all is done. `at_once`: skip the pause.

        The first failure prints a warning, later ones are silent, and after `TRIES` failures nothing is tried any more.
        """
        self.queue.append(partial(action, *arguments))
        if self.failures == TRIES or (time.monotonic() < self.next_try and not at_once):
            return False
        try:
            while self.queue:
                self.queue[0]()
                self.queue.popleft()
        except Exception as error:  # MLflow raises its own, those of requests, SQLAlchemy, boto ...
            if not self.failures:
                reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
                print(f"warning: MLflow cannot be written to: {reason}", file=sys.stderr)
                print("warning: going on without it; results are in reports/ and models/", file=sys.stderr)
            self.failures += 1
            self.next_try = time.monotonic() + PAUSE_SECONDS
            return False
        return True


class TrainingLog:
    """Logs a training's epochs and pictures to its run. Adds the speed of training and its use of the machine."""

    def __init__(self, mirror: Mirror, run: Run, crops: int):
        self.mirror, self.run, self.crops, self.last = mirror, run, crops, time.monotonic()
        self.machine = MachineUse()

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Log an epoch's losses and metrics; return whether MLflow took them."""
        seconds, self.last = time.monotonic() - self.last, time.monotonic()
        # Epochs of an earlier process are logged all at once and have no speed.
        more = {"crops_per_second": self.crops / seconds} | self.machine.means() if seconds > 0.2 else {}
        return self.mirror.do(self.run.log_epochs, [(epoch, {**metrics, **more})], time.time())

    def picture(self, epoch: int, pixels: np.ndarray) -> bool:
        """Log a picture, uint8 (H, W, 3), of what the network sees after an epoch; return whether MLflow took it."""
        return self.mirror.do(self.run.log_picture, epoch, pixels)


@contextmanager
def training_run(
    settings: Params, precision: str, key: str, tags: Mapping[str, str] | None = None
) -> Iterator[TrainingLog]:
    """Open a training's run and yield a log for epochs and pictures; at the end, log the model's files.

    `key` names the training: another call with the same key, before the first one has finished, continues its run.
    The files must be complete when the block ends. If it raises, the run is closed as failed or killed. `tags` are set
    besides those of every training.
    """
    mirror, run = Mirror(), Run(settings)
    mirror.do(run.open, key, {"precision": precision, "machine": machine.describe(), **(tags or {})})
    started = time.monotonic()
    train = settings.train
    images = int((processed.read_manifest().split == "train").sum())
    log = TrainingLog(mirror, run, train.batch_size * (train.steps_per_epoch or -(-images // train.batch_size)))
    try:
        yield log
    except BaseException as error:
        mirror.do(run.stop, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    finally:
        log.machine.ended.set()
    seconds = round(time.monotonic() - started)
    # If MLflow is down now, a later stage finds the run by this.
    run.keep_for_later()
    mirror.do(run.finish, at_once=True)
    mirror.do(run.set_tags, {"seconds.train": str(seconds)})
    mirror.do(run.log_metrics, {"train_seconds": seconds})


def log_stage(
    settings: Params, metrics: Mapping[str, float], files: Iterable[Path], stage: str = "", seconds: float = 0.0
) -> bool:
    """Add a later stage's metrics, files and time to the run of the model in models/; return whether all were taken."""
    mirror, run = Mirror(), Run(settings)
    mirror.do(run.find)
    if metrics:
        mirror.do(run.log_metrics, metrics)
        mirror.do(run.log_scores, metrics)
    if DECISIVE in metrics:
        mirror.do(run.register, metrics)
    if stage:
        mirror.do(run.set_tags, {f"seconds.{stage}": f"{seconds:.0f}"})
    return mirror.do(run.log_files, tuple(files))


def log_adaptation(*described) -> bool:
    """Log a run of `make adapt`; see `adaptation.log`. Return whether MLflow took it."""
    return Mirror().do(adaptation.log, *described)
