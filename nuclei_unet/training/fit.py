"""Train a network: Keras' `fit`, or a loop over several machines, and what reproducible training needs around it."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

from nuclei_unet.network import imagenet, runtime, unet
from nuclei_unet.network.batch_norm import FusedBatchNormalization
from nuclei_unet.network.encoder import PREFIX
from nuclei_unet.sample import Sample
from nuclei_unet.settings import TrainSettings
from nuclei_unet.training import crops, losses, machines, multiworker, resume
from nuclei_unet.training.callbacks import EpochLog, Pictures, Progress, StopOnExplosion, ValidateOnOneDevice


def train(
    training: Sequence[Sample],
    validation: Sequence[Sample],
    settings: TrainSettings,
    channels: int,
    log_epoch,
    state: Path | None = None,
    log_picture=None,
) -> tuple[keras.Model, pd.DataFrame]:
    """Train a network and return it with the best epoch's weights, not compiled, and the history.

    `log_epoch(epoch, metrics)` is called after each epoch, counted from 1. The history has one row per epoch: epoch,
    learning_rate, and loss, foreground_iou, foreground_dice ..., of training crops and (val_...) of the center_crops of
    the validation images. `state`, a path from `resume.state_file`, keeps the state of the training; pixels that do not
    fit into memory lie in its folder. A training that was stopped continues from it, and its earlier epochs are logged
    again. `log_picture(epoch, pixels)` gets pictures of validation images, their truth and their prediction, which
    show how the network learns. Raises InputError if the loss explodes.

    With `settings.strategy` multiworker, several processes call this and train one network; only the chief's
    validates, prints progress and writes the state. Also raises InputError if one of them is gone.
    """
    team = machines.team(settings)
    strategy = machines.start(team, settings) if team else runtime.strategy(settings)
    chief = not team or team.chief
    folder = state.parent if state else None
    source = crops.Crops(training, settings, folder)
    steps = settings.steps_per_epoch or -(-len(source) // settings.batch_size)
    total, size = steps * settings.epochs, steps * settings.batch_size
    center_crops = crops.Crops(validation, settings, folder)
    held_out = crops.as_dataset(center_crops.center_crop, range(len(center_crops)), settings, channels)
    epochs = EpochLog(log_epoch, make_schedule(settings, total), steps)
    kept_epochs = []
    with multiworker.watched(strategy, team, kept_epochs) if team else contextlib.nullcontext():
        with strategy.scope():
            model = unet.build(channels, settings.targets, settings.model, batch_normalization(strategy))
            if settings.model.encoder != "none":
                imagenet.load(model)
            # Not those of metrics: compile adds them later, and each epoch resets them.
            variables = list(model.variables)
            model.compile(make_optimizer(settings, total), **measures(settings))
            model.optimizer.build(model.trainable_variables)
        stop = keras.callbacks.EarlyStopping(
            monitor="val_loss", patience=settings.early_stopping or settings.epochs, restore_best_weights=True
        )
        callbacks, done = [epochs, *([Progress()] if chief else []), stop, StopOnExplosion()], 0
        if team:
            callbacks = [multiworker.ShareLogs(strategy, team), *callbacks]
        if strategy.num_replicas_in_sync > 1 and chief:
            twin = unet.build(channels, settings.targets, settings.model)
            twin.compile(**measures(settings))
            callbacks = [ValidateOnOneDevice(twin, held_out), *callbacks]
        if log_picture:
            callbacks.append(Pictures(center_crops, log_picture))
        if state:
            keep = resume.KeepState
            if team:
                keep = functools.partial(multiworker.KeepSharedState, strategy, team, kept_epochs)
            kept = keep(state, variables + model.optimizer.variables, stop, epochs.rows)
            callbacks, done = [*callbacks, kept], kept.epoch
        if epochs.rows:
            done_before = f"going on after epoch {len(epochs.rows)} of {settings.epochs}, where an earlier run stopped"
            print(done_before, flush=True)
            for row in epochs.rows:
                log_epoch(row["epoch"], {name: value for name, value in row.items() if name != "epoch"})
        if team:
            multiworker.fit(model, strategy, source, measures(settings), settings, steps, done, callbacks)
        else:
            model.fit(
                crops.as_dataset(source.draw, range(done * size, settings.epochs * size), settings, channels),
                validation_data=held_out if strategy.num_replicas_in_sync == 1 else None,
                initial_epoch=done,
                epochs=settings.epochs,
                steps_per_epoch=steps,
                shuffle=False,
                callbacks=callbacks,
                verbose=0,
            )
    # Only Keras' own layers: loading the model needs none of our code.
    trained = unet.build(channels, settings.targets, settings.model)
    trained.set_weights(model.get_weights())
    return trained, pd.DataFrame(epochs.rows)


def measures(settings: TrainSettings) -> dict:
    """Return what Keras' `compile` needs besides the optimizer: losses and metrics of each map."""
    return {
        "loss": {n: losses.bce if n == "distance" else getattr(losses, settings.loss) for n in settings.targets},
        "metrics": {"foreground": [losses.iou, losses.dice]},
        "jit_compile": False,
    }


def batch_normalization(strategy: tf.distribute.Strategy):
    """Return the layer that normalizes by the whole batch, also if several devices share it."""
    if strategy.num_replicas_in_sync == 1:
        return FusedBatchNormalization
    return functools.partial(keras.layers.BatchNormalization, synchronized=True)


def make_schedule(settings: TrainSettings, total: int):
    """Return the learning rate as a number, or as a function of the step (cosine: a warm-up, then down to 0)."""
    if settings.schedule == "constant":
        return settings.learning_rate
    warmup = max(total // 20, 1)
    decay = max(total - warmup, 1)  # a training of one step is all warm-up
    return keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 100, decay, warmup_target=settings.learning_rate, warmup_steps=warmup
    )


def make_optimizer(settings: TrainSettings, total: int) -> keras.optimizers.Optimizer:
    """Return the optimizer for `total` steps."""
    schedule = make_schedule(settings, total)
    if settings.optimizer == "adam":
        return Adam(schedule, encoder_lr_multiplier=settings.encoder_lr_multiplier)
    return AdamW(schedule, weight_decay=settings.weight_decay, encoder_lr_multiplier=settings.encoder_lr_multiplier)


class SlowEncoder:
    """An optimizer that moves a pretrained encoder in smaller steps, by the factor `encoder_lr_multiplier`."""

    def __init__(self, *arguments, encoder_lr_multiplier: float, **options):
        super().__init__(*arguments, **options)
        self.encoder_lr_multiplier = encoder_lr_multiplier

    def build(self, variables):
        """Note which variables are the encoder's. Their weights do not decay: they would forget what they know."""
        slow = [variable.path.startswith(PREFIX) for variable in variables]
        self._factors = [self.encoder_lr_multiplier if its else 1.0 for its in slow]
        self.exclude_from_weight_decay(var_list=[v for v, its in zip(variables, slow, strict=True) if its])
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable."""
        factor = self._factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate if factor == 1 else learning_rate * factor)


class Adam(SlowEncoder, keras.optimizers.Adam):
    """Adam with a factor for the encoder."""


class AdamW(SlowEncoder, keras.optimizers.AdamW):
    """AdamW with a factor for the encoder."""
