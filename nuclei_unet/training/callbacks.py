"""What happens between the steps and epochs of a training."""

import re
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from nuclei_unet.errors import InputError
from nuclei_unet.training import crops

# Training does not recover from a loss this large; it starts near 3.
EXPLODED = 1000.0


class EpochLog(keras.callbacks.Callback):
    """Keep one row per epoch, and pass each one to `log_epoch`."""

    def __init__(self, log_epoch: Callable[[int, dict[str, float]], object]):
        super().__init__()
        self.log_epoch = log_epoch
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch, logs=None):
        """Add the epoch's row: the losses and metrics that Keras measured, and the learning rate at its end."""
        # With a single target Keras leaves its name out.
        renamed = {re.sub("^(val_)?(iou|dice)$", r"\1foreground_\2", name): value for name, value in logs.items()}
        metrics = {name: float(value) for name, value in sorted(renamed.items())}
        metrics["learning_rate"] = float(self.model.optimizer.learning_rate)
        self.rows.append({"epoch": epoch + 1, **metrics})
        self.log_epoch(epoch + 1, metrics)

    def log_earlier(self, epochs: int) -> None:
        """Log the rows that an earlier run of the same training, of so many epochs, has left; and say so."""
        if self.rows:
            print(f"going on after epoch {len(self.rows)} of {epochs}, where an earlier run stopped", flush=True)
        for row in self.rows:
            self.log_epoch(row["epoch"], {name: value for name, value in row.items() if name != "epoch"})


class ValidateOnOneDevice(keras.callbacks.Callback):
    """Add the validation losses and metrics of an epoch if several devices train. Must be the first callback.

    Keras would share the last batch unevenly and then weight the losses of the targets wrongly.
    """

    def __init__(self, twin: keras.Model, data: tf.data.Dataset):
        super().__init__()
        self.twin, self.data = twin, data

    def on_epoch_end(self, epoch, logs=None):
        """Measure with the weights of the epoch, and add the results to `logs` for later callbacks."""
        self.twin.set_weights(self.model.get_weights())
        measured = self.twin.evaluate(self.data, verbose=0, return_dict=True)
        logs.update({f"val_{name}": value for name, value in measured.items()})


class Pictures(keras.callbacks.Callback):
    """Show a validation image of each type, its nuclei and the predicted foreground.

    Drawn after epochs 1, 2, 5, 10, 20, 50 ... and the last.
    """

    def __init__(self, center_crops: crops.Crops, log_picture: Callable[[int, np.ndarray], object]):
        super().__init__()
        self.log_picture = log_picture
        image_types = [sample.image_type for sample in center_crops.samples]
        first_of_each = [image_types.index(image_type) for image_type in sorted(set(image_types))]
        self.images, maps = zip(*map(center_crops.center_crop, first_of_each), strict=True)
        self.truth = [values[..., :1] for values in maps]

    def on_epoch_end(self, epoch, logs=None):
        """Draw the picture: one row per image."""
        if not (re.fullmatch("[125]0*", str(epoch + 1)) or epoch + 1 == self.params["epochs"]):
            return
        maps = self.model(np.stack(self.images).astype(np.float32), training=False)["foreground"]
        predicted = np.rint(keras.ops.convert_to_numpy(maps) * 255).astype(np.uint8)
        rows = [
            # White lines between the parts.
            [np.pad(np.broadcast_to(part, (*part.shape[:2], 3)), ((2, 2), (2, 2), (0, 0)), constant_values=255)
             for part in parts]
            for parts in zip(self.images, self.truth, predicted, strict=True)
        ]  # fmt: skip
        self.log_picture(epoch + 1, np.concatenate([np.concatenate(row, axis=1) for row in rows]))


class StopOnExplosion(keras.callbacks.Callback):
    """Fail at the first loss that is NaN or far too large; `keras.callbacks.TerminateOnNaN` lets the stage go on."""

    def on_train_batch_end(self, batch, logs=None):
        """Check the running mean of the loss; once NaN, it stays NaN."""
        self._check("loss", logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        """Check the validation loss: the weights may be NaN after a last step whose loss was fine."""
        self._check("validation loss", logs["val_loss"])

    def _check(self, name: str, loss: float) -> None:
        if not loss < EXPLODED:
            step, rate = int(self.model.optimizer.iterations), float(self.model.optimizer.learning_rate)
            at = f"at step {step} with a learning rate of {rate:.3g}"
            raise InputError(f"train.learning_rate: the {name} became {loss:.4g} {at}; lower it")


class Progress(keras.callbacks.Callback):
    """Show progress: a bar over the steps of an epoch if in a terminal, and one short line per epoch everywhere."""

    def on_train_begin(self, logs=None):
        """Start the clock."""
        self.started, self.done = time.monotonic(), 0

    def on_epoch_begin(self, epoch, logs=None):
        """Start the epoch's bar."""
        name, steps = f"epoch {epoch + 1}/{self.params['epochs']}", self.params["steps"]
        self.bar = tqdm(desc=name, total=steps, unit="step", disable=None, leave=False)
        self.epoch_started = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        """Move the bar."""
        self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)
        self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        """Print the epoch's line."""
        self.bar.close()
        now, epochs = time.monotonic(), self.params["epochs"]
        self.done += 1
        left = (now - self.started) / self.done * (epochs - epoch - 1)
        iou = logs.get("val_foreground_iou", logs.get("val_iou"))  # with a single target Keras leaves its name out
        print(
            f"epoch {epoch + 1:{len(str(epochs))}}/{epochs}  loss {logs['loss']:.4f}  "
            f"validation loss {logs['val_loss']:.4f}  IoU {iou:.4f}  {now - self.epoch_started:.0f} s"
            + (f"  {_duration(left)} left" if left else ""),
            flush=True,
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
