"""Train a network on one machine: on one device, or on several that share each batch."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from nuclei_unet.network import imagenet, runtime, unet
from nuclei_unet.network.batch_norm import FusedBatchNormalization
from nuclei_unet.network.encoder import PREFIX
from nuclei_unet.sample import Sample
from nuclei_unet.settings import TrainSettings
from nuclei_unet.training import losses, resume
from nuclei_unet.training.callbacks import EpochLog, Pictures, Progress, StopOnExplosion, ValidateOnOneDevice
from nuclei_unet.training.crops import Crops, as_dataset


def train(
    training: Sequence[Sample],
    validation: Sequence[Sample],
    settings: TrainSettings,
    channels: int,
    log_epoch: Callable[[int, dict[str, float]], object],
    state: Path | None = None,
    log_picture: Callable[[int, np.ndarray], object] | None = None,
) -> tuple[keras.Model, pd.DataFrame]:
    """Train a network and return it with the best epoch's weights, not compiled, and the history.

    `log_epoch(epoch, metrics)` is called after each epoch, counted from 1. The history has one row per epoch: epoch,
    learning_rate, and loss, foreground_iou, foreground_dice ..., of training crops and (val_...) of the center crops of
    the validation images. `state`, a path from `resume.state_file`, keeps the state of the training; pixels that do not
    fit into memory lie in its folder. A training that was stopped continues from it, and its earlier epochs are logged
    again. `log_picture(epoch, pixels)` gets pictures of validation images, their truth and their prediction, which
    show how the network learns. Raises InputError if the loss explodes.
    """
    strategy = runtime.strategy(settings)
    folder = state.parent if state else None
    source, center_crops = Crops(training, settings, folder), Crops(validation, settings, folder)
    held_out = as_dataset(center_crops.center_crop, range(len(center_crops)), settings, channels)
    steps = steps_per_epoch(source, settings)
    with strategy.scope():
        model = build(settings, channels, steps, strategy.num_replicas_in_sync)
    history, stop = EpochLog(log_epoch), early_stopping(settings)
    callbacks = [history, Progress(), stop, StopOnExplosion()]
    if strategy.num_replicas_in_sync > 1:
        callbacks.insert(0, ValidateOnOneDevice(twin(settings, channels), held_out))
        held_out = None
    if log_picture:
        callbacks.append(Pictures(center_crops, log_picture))
    done = 0
    if state:
        kept = resume.KeepState(state, model.variables + model.optimizer.variables, stop, history.rows)
        callbacks.append(kept)
        done = kept.epoch
        history.log_earlier(settings.epochs)
    size = steps * settings.batch_size
    model.fit(
        as_dataset(source.draw, range(done * size, settings.epochs * size), settings, channels),
        validation_data=held_out,
        initial_epoch=done,
        epochs=settings.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        callbacks=callbacks,
        verbose=0,
    )
    return handed_over(model, settings), pd.DataFrame(history.rows)


def steps_per_epoch(source: Crops, settings: TrainSettings) -> int:
    """Return the number of batches in an epoch; if the settings do not say, of one pass over the images."""
    return settings.steps_per_epoch or -(-len(source) // settings.batch_size)


def build(settings: TrainSettings, channels: int, steps: int, replicas: int) -> keras.Model:
    """Return the network, compiled, with its optimizer for epochs of `steps` steps, for `replicas` devices."""
    # Statistics are those of the whole batch, also if several devices share it.
    synchronized = functools.partial(keras.layers.BatchNormalization, synchronized=True)
    normalization = FusedBatchNormalization if replicas == 1 else synchronized
    model = unet.build(channels, settings.targets, settings.model, normalization)
    if settings.model.encoder != "none":
        imagenet.load(model)
    model.compile(make_optimizer(settings, steps * settings.epochs), **measures(settings))
    model.optimizer.build(model.trainable_variables)
    return model


def twin(settings: TrainSettings, channels: int) -> keras.Model:
    """Return a network of the same shape that can only be evaluated."""
    model = unet.build(channels, settings.targets, settings.model)
    model.compile(**measures(settings))
    return model


def handed_over(model: keras.Model, settings: TrainSettings) -> keras.Model:
    """Return a trained network, not compiled, of Keras' own layers: loading it needs none of our code."""
    trained = unet.build(model.input_shape[-1], settings.targets, settings.model)
    trained.set_weights(model.get_weights())
    return trained


def early_stopping(settings: TrainSettings) -> keras.callbacks.EarlyStopping:
    """Return the callback that ends a training if need be, and brings back the weights of its best epoch."""
    return keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=settings.early_stopping or settings.epochs, restore_best_weights=True
    )


def measures(settings: TrainSettings) -> dict:
    """Return what Keras' `compile` needs besides the optimizer: losses and metrics of each map."""
    return {
        "loss": {n: losses.bce if n == "distance" else getattr(losses, settings.loss) for n in settings.targets},
        "metrics": {"foreground": [losses.iou, losses.dice]},
        "jit_compile": False,
    }


def make_optimizer(settings: TrainSettings, total: int) -> keras.optimizers.Optimizer:
    """Return the optimizer for `total` steps; by a cosine schedule the rate warms up, then goes down to 0."""
    rate = settings.learning_rate
    if settings.schedule == "cosine":
        warmup = max(total // 20, 1)
        decay = max(total - warmup, 1)  # a training of one step is all warm-up
        rate = keras.optimizers.schedules.CosineDecay(rate / 100, decay, warmup_target=rate, warmup_steps=warmup)
    if settings.optimizer == "adam":
        return Adam(rate, encoder_lr_multiplier=settings.encoder_lr_multiplier)
    return AdamW(rate, weight_decay=settings.weight_decay, encoder_lr_multiplier=settings.encoder_lr_multiplier)


class SlowEncoder:
    """An optimizer that moves a pretrained encoder in smaller steps: its learning rate has a multiplier."""

    def __init__(self, *arguments, encoder_lr_multiplier: float, **options):
        super().__init__(*arguments, **options)
        self.encoder_lr_multiplier = encoder_lr_multiplier

    def build(self, variables):
        """Note which variables are the encoder's. Their weights do not decay: they would forget what they know."""
        encoders = [variable for variable in variables if variable.path.startswith(PREFIX)]
        self.exclude_from_weight_decay(var_list=encoders)
        super().build(variables)
        self._slow = {self._get_variable_index(variable) for variable in encoders}

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable."""
        if self._get_variable_index(variable) in self._slow and self.encoder_lr_multiplier != 1:
            learning_rate = learning_rate * self.encoder_lr_multiplier
        super().update_step(gradient, variable, learning_rate)


class Adam(SlowEncoder, keras.optimizers.Adam):
    """Adam with a learning-rate multiplier for the encoder."""


class AdamW(SlowEncoder, keras.optimizers.AdamW):
    """AdamW with a learning-rate multiplier for the encoder."""
