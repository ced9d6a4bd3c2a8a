"""DVC stage: train the U-Net.

    python -m pipeline.train

Reads data/processed/ and the `train` section of params.yaml. Writes models/model.keras (the weights of the epoch with
the lowest validation loss) and reports/history.csv (one row an epoch), and mirrors both to MLflow. A training that was
killed goes on after its last whole epoch (see `pipeline/resume.py`).
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import pandas as pd

from pipeline import crops, dataset, losses, model_file, params, resume, runtime, stage, tracking, unet
from pipeline.batch_norm import FusedBatchNormalization
from pipeline.params import TrainParams
from pipeline.stage import InputError

# A loss this large has left all that training can come back from; it starts near 3.
EXPLODED = 1000.0


def main() -> None:
    """Write models/model.keras and reports/history.csv."""
    settings = params.load()
    precision = runtime.configure(settings.train)
    training, validation = dataset.read_split("train"), dataset.read_split("validation")
    state = resume.state_file(settings.train, precision, dataset.FOLDER)
    with tracking.training_run(settings, precision, state.stem) as log_epoch:
        model, history = train(training, validation, settings.train, settings.preprocess.channels, log_epoch, state)
        with stage.fresh_file(model_file.MODEL) as new_model, stage.fresh_file(tracking.HISTORY) as new_history:
            model_file.save(model, new_model)
            history.to_csv(new_history, index=False, float_format="%.6g", lineterminator="\n")
        state.unlink(missing_ok=True)
    best = history.loc[history.val_loss.idxmin()]
    print(f"kept epoch {best.epoch:.0f}: validation loss {best.val_loss:.4f}, IoU {best.val_foreground_iou:.4f}")


def train(
    training: Sequence[dataset.Sample | dataset.StoredSample],
    validation: Sequence[dataset.Sample | dataset.StoredSample],
    settings: TrainParams,
    channels: int,
    log_epoch,
    state: Path | None = None,
) -> tuple[keras.Model, pd.DataFrame]:
    """Train a network and return it with the best epoch's weights, not compiled, and the history.

    `log_epoch(epoch, metrics)` is called after each epoch, counted from 1. The history has one row an epoch: epoch,
    learning_rate, and loss, foreground_iou, foreground_dice ..., of training crops and (val_...) of the middles of
    the validation images. With `state`, a path from `resume.state_file`, it is kept there where the training stands,
    and one that was stopped goes on; its earlier epochs are logged again. Raises InputError if the loss explodes.
    """
    source = crops.Crops(training, settings)
    steps = settings.steps_per_epoch or -(-len(source) // settings.batch_size)
    total, size = steps * settings.epochs, steps * settings.batch_size
    middles = crops.Crops(validation, settings)
    held_out = crops.as_dataset(middles.middle, range(len(middles)), settings, channels)

    model = unet.build(channels, settings.targets, settings.model, FusedBatchNormalization)
    # Those of metrics, which compile adds, start anew with each epoch.
    variables = list(model.variables)
    model.compile(
        optimizer=make_optimizer(settings, total),
        loss={name: losses.bce if name == "distance" else getattr(losses, settings.loss) for name in settings.targets},
        metrics={"foreground": [losses.iou, losses.dice]},
        jit_compile=False,
    )
    stop = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=settings.early_stopping or settings.epochs, restore_best_weights=True
    )
    epochs = EpochLog(log_epoch, make_schedule(settings, total), steps)
    callbacks, done = [epochs, stop, StopOnExplosion()], 0
    if state:
        model.optimizer.build(model.trainable_variables)
        kept = resume.KeepState(state, variables + model.optimizer.variables, stop, epochs.rows)
        callbacks, done = [*callbacks, kept], kept.epoch
    if epochs.rows:
        print(f"going on after epoch {len(epochs.rows)} of {settings.epochs}, where an earlier run stopped", flush=True)
        for row in epochs.rows:
            log_epoch(row["epoch"], {name: value for name, value in row.items() if name != "epoch"})
    model.fit(
        crops.as_dataset(source.draw, range(done * size, settings.epochs * size), settings, channels),
        validation_data=held_out,
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


if __name__ == "__main__":
    stage.run(main)
