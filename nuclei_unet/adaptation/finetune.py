"""Go on training a network on a few annotated images, with images of its own training mixed in."""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from nuclei_unet.errors import InputError
from nuclei_unet.network import runtime, unet
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.sample import Sample
from nuclei_unet.settings import AugmentSettings, TrainSettings
from nuclei_unet.training import fit
from nuclei_unet.training.crops import Crops, as_dataset

LEARNING_RATE = 5e-4
CROP, BATCH = 256, 16
EXPLODED = 1000.0  # a loss this large does not recover
# Weaker than in a training from scratch, and above all with less zoom: an outline that was drawn 1 px too wide is 1.8
# px too wide in a crop that is enlarged by 1.8, and the network is to learn the 1 px.
AUGMENT = AugmentSettings(
    flip=True,
    rotate=True,
    zoom=(0.8, 1.25),
    gamma=(0.7, 1.4),
    contrast=0.2,
    noise=0.03,
    blur=1.0,
    invert=0.0,
    cytoplasm=0.0,
    transfer=0.0,
    mix=0.0,
)


def settings_for(metadata: Metadata, seed: int, threads: int, steps: int) -> TrainSettings:
    """Return the settings of a fine-tuning of a model."""
    multiple = metadata.network.size_multiple
    return TrainSettings(
        seed=seed,
        threads=threads,
        precision="auto",
        strategy="single",
        targets=metadata.targets,
        crop_size=max(CROP // multiple, 1) * multiple,
        type_balance=0.0,
        batch_size=BATCH,
        epochs=1,
        steps_per_epoch=steps,
        optimizer="adamw",
        learning_rate=LEARNING_RATE,
        encoder_lr_multiplier=0.1,
        schedule="cosine",
        weight_decay=1e-4,
        loss="bce_dice",
        early_stopping=None,
        model=metadata.network,
        augment=AUGMENT,
    )


class Finetuner:
    """Goes on training a network, any number of times from the same weights; its graph is traced once.

    Parameters
    ----------
    weights : of a network without batch normalization (`settings.model` says so, too). Folded into the convolutions,
        its averages cannot drift to those of a handful of images
    settings : see `settings_for`
    channels : of images
    replay : images that the network was trained on, or none. If given, every second crop of a batch is one of theirs,
        which keeps the network from forgetting what else it knew
    """

    def __init__(
        self, weights: Sequence[np.ndarray], settings: TrainSettings, channels: int, replay: Sequence[Sample] = ()
    ):
        self.settings, self.channels = settings, channels
        self.replay = Crops(replay, settings.model_copy(update={"type_balance": 0.5})) if replay else None
        keras.utils.set_random_seed(settings.seed)
        tf.config.experimental.enable_op_determinism()
        with runtime.precision(settings.precision):
            self.model = unet.build(channels, settings.targets, settings.model)
        self.model.set_weights(weights)
        optimizer = fit.make_optimizer(settings, settings.steps_per_epoch)
        self.model.compile(optimizer, **fit.measures(settings))
        self.model.optimizer.build(self.model.trainable_variables)
        # With the state of dropout and of the optimizer.
        self._variables = [*self.model.variables, *self.model.optimizer.variables]
        self._start = [keras.ops.convert_to_numpy(variable) for variable in self._variables]

    def run(
        self, samples: Sequence[Sample], stops: Sequence[int], on_step: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Train on samples; yield the number of steps and the weights at each of `stops`, in ascending order.

        The learning rate warms up over 5% of `settings.steps_per_epoch` steps and then falls to 0 by a cosine. Equal
        calls on the same machine give equal weights, whatever was run before, and the weights at a stop do not depend
        on the stops after it. Raises InputError if the loss explodes.
        """
        for variable, value in zip(self._variables, self._start, strict=True):
            variable.assign(value)
        own = Crops(samples, self.settings)

        def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
            if self.replay is None:
                return own.draw(number)
            return (self.replay if number % 2 else own).draw(number // 2)

        numbers = range(max(stops) * self.settings.batch_size)
        for step, batch in enumerate(as_dataset(draw, numbers, self.settings, self.channels), start=1):
            loss = float(self.model.train_on_batch(*batch, return_dict=True)["loss"])
            if not loss < EXPLODED:
                raise InputError(f"the loss of the fine-tuning became {loss:.4g}; check the labels, or calibrate only")
            on_step()
            if step in stops:
                yield step, self.model.get_weights()
