"""Train a network: Keras' `fit` with what a reproducible training needs around it."""

import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from nuclei_unet.errors import InputError
from nuclei_unet.network import runtime, unet
from nuclei_unet.network.batch_norm import FusedBatchNormalization
from nuclei_unet.sample import Sample
from nuclei_unet.settings import TrainParams
from nuclei_unet.training import crops, losses, resume

# A loss this large has left all that training can come back from; it starts near 3.
EXPLODED = 1000.0


def train(
    training: Sequence[Sample],
    validation: Sequence[Sample],
    settings: TrainParams,
    channels: int,
    log_epoch,
    state: Path | None = None,
    log_picture=None,
) -> tuple[keras.Model, pd.DataFrame]:
    """Train a network and return it with the best epoch's weights, not compiled, and the history.

    `log_epoch(epoch, metrics)` is called after each epoch, counted from 1. The history has one row an epoch: epoch,
    learning_rate, and loss, foreground_iou, foreground_dice ..., of training crops and (val_...) of the middles of
    the validation images. With `state`, a path from `resume.state_file`, it is kept there where the training stands,
    and one that was stopped goes on; its earlier epochs are logged again. `log_picture(epoch, pixels)` gets pictures
    of validation images, their truth and their prediction, from which one sees the network learn. Raises InputError
    if the loss explodes.
    """
    source = crops.Crops(training, settings)
    steps = settings.steps_per_epoch or -(-len(source) // settings.batch_size)
    total, size = steps * settings.epochs, steps * settings.batch_size
    middles = crops.Crops(validation, settings)
    held_out = crops.as_dataset(middles.middle, range(len(middles)), settings, channels)

    strategy = runtime.strategy(settings)
    with strategy.scope():
        model = unet.build(channels, settings.targets, settings.model, batch_normalization(strategy))
        # Those of metrics, which compile adds, start anew with each epoch.
        variables = list(model.variables)
        model.compile(make_optimizer(settings, total), **measures(settings))
        model.optimizer.build(model.trainable_variables)
    stop = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=settings.early_stopping or settings.epochs, restore_best_weights=True
    )
    epochs = EpochLog(log_epoch, make_schedule(settings, total), steps)
    callbacks, done = [epochs, stop, StopOnExplosion()], 0
    if strategy.num_replicas_in_sync > 1:
        twin = unet.build(channels, settings.targets, settings.model)
        twin.compile(**measures(settings))
        callbacks = [ValidateOnOneDevice(twin, held_out), *callbacks]
    if log_picture:
        callbacks.append(Pictures(middles, log_picture))
    if state:
        kept = resume.KeepState(state, variables + model.optimizer.variables, stop, epochs.rows)
        callbacks, done = [*callbacks, kept], kept.epoch
    if epochs.rows:
        print(f"going on after epoch {len(epochs.rows)} of {settings.epochs}, where an earlier run stopped", flush=True)
        for row in epochs.rows:
            log_epoch(row["epoch"], {name: value for name, value in row.items() if name != "epoch"})
    model.fit(
        crops.as_dataset(source.draw, range(done * size, settings.epochs * size), settings, channels),
        validation_data=held_out if strategy.num_replicas_in_sync == 1 else None,
        initial_epoch=done,
        epochs=settings.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        callbacks=callbacks,
        # A bar for a person; one line an epoch in a log file.
        verbose=1 if sys.stdout.isatty() else 2,
    )
    # Keras' layers and the weights alone: whoever loads the model needs none of our code.
    trained = unet.build(channels, settings.targets, settings.model)
    trained.set_weights(model.get_weights())
    return trained, pd.DataFrame(epochs.rows)


def measures(settings: TrainParams) -> dict:
    """Return what Keras' `compile` needs beside the optimizer: losses and metrics of each map."""
    return {
        "loss": {n: losses.bce if n == "distance" else getattr(losses, settings.loss) for n in settings.targets},
        "metrics": {"foreground": [losses.iou, losses.dice]},
        "jit_compile": False,
    }


def batch_normalization(strategy: tf.distribute.Strategy):
    """Return the layer that normalizes by the whole batch, also where several devices share it."""
    if strategy.num_replicas_in_sync == 1:
        return FusedBatchNormalization
    return functools.partial(keras.layers.BatchNormalization, synchronized=True)


def make_schedule(settings: TrainParams, total: int):
    """Return the learning rate as a number, or as a function of the step (cosine: a warm-up, then down to 0)."""
    if settings.schedule == "constant":
        return settings.learning_rate
    warmup = max(total // 20, 1)
    return keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 100, total - warmup, warmup_target=settings.learning_rate, warmup_steps=warmup
    )


def make_optimizer(settings: TrainParams, total: int) -> keras.optimizers.Optimizer:
    """Return the optimizer for `total` steps."""
    if settings.optimizer == "adam":
        return keras.optimizers.Adam(make_schedule(settings, total))
    return keras.optimizers.AdamW(make_schedule(settings, total), weight_decay=settings.weight_decay)


class EpochLog(keras.callbacks.Callback):
    """Keep one row an epoch, and hand it on as it comes."""

    def __init__(self, log_epoch, schedule, steps: int):
        super().__init__()
        self.log_epoch, self.schedule, self.steps = log_epoch, schedule, steps
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch, logs=None):
        """Add the epoch's row: the losses and metrics that Keras measured, and the learning rate at its end."""
        rate = float(self.schedule((epoch + 1) * self.steps)) if callable(self.schedule) else self.schedule
        # With a single target Keras leaves its name out.
        renamed = {re.sub("^(val_)?(iou|dice)$", r"\1foreground_\2", name): value for name, value in logs.items()}
        metrics = {name: float(value) for name, value in sorted(renamed.items())} | {"learning_rate": rate}
        self.rows.append({"epoch": epoch + 1, **metrics})
        self.log_epoch(epoch + 1, metrics)


class ValidateOnOneDevice(keras.callbacks.Callback):
    """Add the validation losses and metrics of an epoch, where several devices train. Has to be the first callback.

    Keras would share the last batch unevenly and then weigh the losses of the targets wrongly.
    """

    def __init__(self, twin: keras.Model, data: tf.data.Dataset):
        super().__init__()
        self.twin, self.data = twin, data

    def on_epoch_end(self, epoch, logs=None):
        """Measure with the weights of the epoch; later callbacks see the same `logs`."""
        self.twin.set_weights(self.model.get_weights())
        measured = self.twin.evaluate(self.data, verbose=0, return_dict=True)
        logs.update({f"val_{name}": value for name, value in measured.items()})


class Pictures(keras.callbacks.Callback):
    """Show one validation image of each kind, its nuclei and the predicted foreground; ever more rarely.

    After epochs 1, 2, 5, 10, 20, 50 ... and the last.
    """

    def __init__(self, middles: crops.Crops, log_picture):
        super().__init__()
        self.log_picture = log_picture
        kinds = [sample.kind for sample in middles.samples]
        self.images, maps = zip(*(middles.middle(kinds.index(kind)) for kind in sorted(set(kinds))), strict=True)
        self.truth = [values[..., :1] for values in maps]

    def on_epoch_end(self, epoch, logs=None):
        """Draw the picture: a row an image."""
        if not (re.fullmatch("[125]0*", str(epoch + 1)) or epoch + 1 == self.params["epochs"]):
            return
        maps = self.model(np.stack(self.images).astype(np.float32), training=False)["foreground"]
        predicted = np.rint(keras.ops.convert_to_numpy(maps) * 255).astype(np.uint8)
        rows = [
            # White lines between them.
            [np.pad(np.broadcast_to(part, (*part.shape[:2], 3)), ((2, 2), (2, 2), (0, 0)), constant_values=255)
             for part in parts]
            for parts in zip(self.images, self.truth, predicted, strict=True)
        ]  # fmt: skip
        self.log_picture(epoch + 1, np.concatenate([np.concatenate(row, axis=1) for row in rows]))


class StopOnExplosion(keras.callbacks.Callback):
    """Fail at the first loss that is no number or beyond all bounds; `keras.callbacks.TerminateOnNaN` would go on."""

    def on_train_batch_end(self, batch, logs=None):
        """Look at the running mean of the loss, which stays NaN once it was."""
        if not logs["loss"] < EXPLODED:
            step, rate = int(self.model.optimizer.iterations), float(self.model.optimizer.learning_rate)
            raise InputError(
                f"train.learning_rate: the loss became {logs['loss']:.4g} at step {step} with a learning rate of "
                f"{rate:.3g}; lower it"
            )
