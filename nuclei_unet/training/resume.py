"""Where a training stands, written after each epoch: one that was killed goes on with the same bits.

All of it is one file that appears whole or not at all: weights, optimizer, the state of dropout, early stopping, the
history. (keras.callbacks.BackupAndRestore keeps only some of it, and a kill while it writes spoils the rest.) Crop
number n does not depend on the crops before it, so there is no position in the data to keep.

The file lies in .resume/, which DVC does not know and git ignores; DVC would delete an output before the stage runs.
Its name is a digest of all that shapes the training, so that a state of other parameters, code or data is never taken;
it is deleted once the model is written.
"""

import hashlib
import json
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from nuclei_unet.files import fresh_file
from nuclei_unet.settings import TrainParams

FOLDER = Path(".resume")


def state_file(settings: TrainParams, machine: str, data: Path) -> Path:
    """Return where the training with these parameters on the files in folder `data` keeps its state.

    `machine` names what the machine decides: precision and devices. Deletes the states of trainings with other
    parameters, code, data or packages.
    """
    digest = hashlib.sha256(f"{settings!r} {machine}".encode())
    for package in ("keras", "tensorflow", "numpy", "opencv-python-headless"):
        digest.update(version(package).encode())
    for path in sorted([*Path("nuclei_unet").rglob("*.py"), *Path("pipeline").rglob("*.py"), *data.rglob("*")]):
        if path.is_file():
            digest.update(str(path).encode())
            digest.update(path.read_bytes())
    path = FOLDER / f"train-{digest.hexdigest()[:32]}.npz"
    for other in FOLDER.glob("train-*"):
        if other != path:
            other.unlink()
    return path


class KeepState(keras.callbacks.Callback):
    """Write the state after each epoch, and start from it. Has to be the last callback of `fit`.

    `path` is from `state_file`, `variables` are all of the model and its optimizer, `stop` is the training's early
    stopping, `rows` its history: a list of one dictionary an epoch, to which the training adds. `epoch` is the number
    of epochs done, for `fit(initial_epoch=...)`.
    """

    def __init__(self, path: Path, variables: list, stop: keras.callbacks.EarlyStopping, rows: list[dict]):
        super().__init__()
        self.path, self.variables, self.stop, self.rows = path, variables, stop, rows
        self.epoch, self._best, self._best_weights = 0, {}, None
        if not path.exists():
            return
        try:
            with np.load(path, allow_pickle=False) as file:
                state = json.loads(file["state"].item())
                values = [file[f"variable{n}"] for n in range(len(variables))]
                self._best_weights = [file[f"best{n}"] for n in range(state["best_weights"])]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            print(f"warning: {path} is damaged; starting from the first epoch", file=sys.stderr)
            return
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self.epoch, self._best = state["epoch"], state["best"]
        rows.extend(state["rows"])

    def on_train_begin(self, logs=None):
        """Bring early stopping to where it stood; it has just reset itself."""
        for name, value in self._best.items():
            setattr(self.stop, name, value)
        if self._best:
            self.stop.best_weights = self._best_weights

    def on_epoch_end(self, epoch, logs=None):
        """Write the state."""
        best = {name: getattr(self.stop, name) for name in ("best", "best_epoch", "wait", "stopped_epoch")}
        weights = self.stop.best_weights or []
        # One that stopped early is done: its last epoch is the last there is.
        done = self.params["epochs"] if self.model.stop_training else epoch + 1
        state = {"epoch": done, "best": best, "best_weights": len(weights), "rows": self.rows}
        with fresh_file(self.path) as path, path.open("wb") as file:
            np.savez(
                file,
                state=json.dumps(state),
                **{f"variable{n}": variable.numpy() for n, variable in enumerate(self.variables)},
                **{f"best{n}": value for n, value in enumerate(weights)},
            )
