"""Keep the state of a training after each epoch. A killed training goes on from it, with bit-for-bit the same result.

The state is one file, written completely or not at all: weights, optimizer, dropout, early stopping, the history.
(keras.callbacks.BackupAndRestore keeps only some of it, and a kill while it writes spoils the rest.) Crop number n does
not depend on the crops before it. Its name is a digest of all that affects the training, so it is reused only if
parameters, code and data are unchanged. Whoever trains deletes it once the model is written.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import keras
import numpy as np

from nuclei_unet.files import file_digest, fresh_file, tree_digest
from nuclei_unet.settings import TrainSettings


def state_file(folder: Path, settings: TrainSettings, machine: str, files: Iterable[Path]) -> Path:
    """Return the path in `folder` where the training with these settings keeps its state.

    `machine` names what depends on the machine: precision and devices. `files` are the files and folders that affect
    the training: its code and its data. Deletes the states of trainings with other settings, files or packages.
    """
    packages = [version(name) for name in ("keras", "tensorflow", "numpy", "opencv-python-headless")]
    # This module decides how a state is read.
    described = f"{settings!r} {machine} {packages} {tree_digest(files)} {file_digest(Path(__file__))}"
    path = folder / f"train-{hashlib.sha256(described.encode()).hexdigest()[:32]}.npz"
    for other in folder.glob("train-*"):
        if other != path:
            other.unlink()
    return path


class KeepState(keras.callbacks.Callback):
    """Write the state after each epoch, and start from it. Must be the last callback of `fit`.

    `path` is from `state_file`, `variables` are all variables of the model and its optimizer, `stop` is the training's
    early stopping. `rows` is its history, a list of one dictionary per epoch, to which the training adds. `epoch` is
    the number of epochs done, for `fit(initial_epoch=...)`.
    """

    def __init__(self, path: Path, variables: list, stop: keras.callbacks.EarlyStopping, rows: list[dict]):
        super().__init__()
        self.path, self.variables, self.stop, self.rows = path, variables, stop, rows
        self.epoch = 0
        self._best: dict[str, float] = {}
        self._best_weights: list[np.ndarray] | None = None
        if path.exists():
            try:
                self._read()
            # A damaged header may claim any size, and damaged JSON be anything.
            except (OSError, ValueError, KeyError, TypeError, EOFError, MemoryError, RecursionError, BadZipFile):
                print(f"warning: {path} is damaged; starting from the first epoch", file=sys.stderr)

    def _read(self) -> None:
        with np.load(self.path, allow_pickle=False) as file:
            state = json.loads(file["state"].item())
            values = [file[f"variable{n}"] for n in range(len(self.variables))]
            best_weights = [file[f"best{n}"] for n in range(state["best_weights"])]
        epoch, best, rows = state["epoch"], state["best"], state["rows"]
        if [value.shape for value in values] != [tuple(variable.shape) for variable in self.variables]:
            raise ValueError("other shapes")
        # All of it could be read; only now is anything changed.
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        self.epoch, self._best, self._best_weights = epoch, best, best_weights
        self.rows.extend(rows)

    def on_train_begin(self, logs=None):
        """Restore early stopping, which has just reset itself."""
        for name, value in self._best.items():
            setattr(self.stop, name, value)
        if self._best:
            self.stop.best_weights = self._best_weights

    def on_epoch_end(self, epoch, logs=None):
        """Write the state."""
        best = {name: getattr(self.stop, name) for name in ("best", "best_epoch", "wait", "stopped_epoch")}
        weights = self.stop.best_weights or []
        # A training that stopped early is done: it has no epochs left.
        done = self.params["epochs"] if self.model.stop_training else epoch + 1
        state = {"epoch": done, "best": best, "best_weights": len(weights), "rows": self.rows}
        with fresh_file(self.path) as path, path.open("wb") as file:
            np.savez(
                file,
                state=json.dumps(state),
                **{f"variable{n}": variable.numpy() for n, variable in enumerate(self.variables)},
                **{f"best{n}": value for n, value in enumerate(weights)},
            )
