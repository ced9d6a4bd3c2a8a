"""The live log of a training in MLflow: epochs and pictures while it runs. Every call may fail and is not repeated.

Files come first: what the log misses, `sync` sends from them when the training has ended.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from mlflow.entities import Metric

from pipeline import machine
from pipeline.dataset import processed
from pipeline.params import Params
from pipeline.tracking import names, store, sync
from pipeline.tracking.machine_use import MachineUse


class TrainingLog:
    """Logs a training's epochs and pictures to its run. Adds the speed of training and its use of the machine."""

    def __init__(self, settings: Params, key: str, tags: Mapping[str, str]):
        self.settings, self.key, self.tags = settings, key, {"training": key, **tags}
        self.attempts, self.machine = store.Attempts(), MachineUse()
        self.run_id: str | None = None
        self.known: set[int] = set()  # epochs that the run has already
        self.started = self.last = time.monotonic()
        images, batch = int((processed.read_manifest().split == "train").sum()), settings.train.batch_size
        self.crops = batch * (settings.train.steps_per_epoch or -(-images // batch))
        self.attempts.do(self._open)

    def epoch(self, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Log an epoch's losses and metrics; return whether MLflow took them."""
        seconds, self.last = time.monotonic() - self.last, time.monotonic()
        # Epochs of an earlier process are logged all at once and have no speed.
        more = {"crops_per_second": self.crops / seconds} | self.machine.means() if seconds > 0.2 else {}
        return self.attempts.do(self._epoch, epoch, {**metrics, **more})

    def picture(self, epoch: int, pixels: np.ndarray) -> bool:
        """Log a picture, uint8 (H, W, 3), of what the network sees after an epoch; return whether MLflow took it."""
        return self.attempts.do(self._picture, epoch, pixels)

    def stop(self, status: str) -> None:
        """Close the run as FAILED or KILLED."""
        if self.run_id:
            self.attempts.do(self.client.set_terminated, self.run_id, status)

    def finish(self) -> None:
        """Complete the run from the training's files."""
        seconds = time.monotonic() - self.started
        self.attempts.do(sync.sync, self.settings, "train", seconds, self.run_id, at_once=True)

    def _open(self) -> None:
        """Continue the run of this training if that was stopped before its end, or start a new one."""
        if self.run_id:
            return
        self.client, experiment = store.connect()
        query = f"tags.training = '{self.key}' and attributes.status != 'FINISHED'"
        runs = self.client.search_runs([experiment], query, max_results=1)
        run = runs[0] if runs else sync.create(self.client, experiment, self.settings, self.tags)
        self.client.update_run(run.info.run_id, status="RUNNING")
        self.known = sync.epochs(self.client, run.info.run_id)
        self.run_id = run.info.run_id
        sync.describe(self.client, run, self.settings)

    def _epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        self._open()
        if epoch not in self.known:
            now = int(time.time() * 1000)
            self.client.log_batch(
                self.run_id, [Metric(names.curve(name), value, now, epoch) for name, value in metrics.items()]
            )

    def _picture(self, epoch: int, pixels: np.ndarray) -> None:
        self._open()
        self.client.log_image(self.run_id, pixels, key=names.PICTURE, step=epoch)


@contextmanager
def training_run(
    settings: Params, precision: str, key: str, tags: Mapping[str, str] | None = None
) -> Iterator[TrainingLog]:
    """Open a training's run and yield a log for epochs and pictures; at the end, complete it from the model's files.

    `key` names the training: another call with the same key, before the first one has finished, continues its run.
    The files must be complete when the block ends. If it raises, the run is closed as failed or killed. `tags` are set
    besides those of every training.
    """
    log = TrainingLog(settings, key, {"precision": precision, "machine": machine.describe(), **(tags or {})})
    try:
        yield log
    except BaseException as error:
        log.stop("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    finally:
        log.machine.ended.set()
    log.finish()
