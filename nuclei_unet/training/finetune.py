"""Go on training a network on a few annotated images, with images of its own training mixed in."""

from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from nuclei_unet.errors import InputError
from nuclei_unet.network import runtime, unet
from nuclei_unet.recipe import Recipe
from nuclei_unet.sample import Sample
from nuclei_unet.settings import AugmentSettings, TrainSettings
from nuclei_unet.training import losses
from nuclei_unet.training.crops import Crops, as_dataset

LEARNING_RATE = 5e-4
CROP, BATCH = 256, 16
# Weaker than in a training from scratch, and above all with less zoom: an outline that was drawn 1 px too wide is 1.8
# px too wide in a crop that is enlarged by 1.8, and the network is to learn the 1 px.
AUGMENT = AugmentSettings(
    flip=True, rotate=True, zoom=(0.8, 1.25), gamma=(0.7, 1.4), contrast=0.2, noise=0.03, blur=1.0, invert=0.0
)


def settings_for(recipe: Recipe, seed: int, threads: int, steps: int) -> TrainSettings:
    """Return the settings of a fine-tuning of a model."""
    multiple = recipe.network.size_multiple
    return TrainSettings(
        seed=seed,
        threads=threads,
        precision="auto",
        strategy="single",
        targets=recipe.targets,
        crop_size=max(CROP // multiple, 1) * multiple,
        kind_balance=0.0,
        batch_size=BATCH,
        epochs=1,
        steps_per_epoch=steps,
        optimizer="adamw",
        learning_rate=LEARNING_RATE,
        schedule="cosine",
        weight_decay=1e-4,
        loss="bce_dice",
        early_stopping=None,
        model=recipe.network,
        augment=AUGMENT,
    )


def finetune(
    weights: Sequence[np.ndarray],
    samples: Sequence[Sample],
    replay: Crops | None,
    settings: TrainSettings,
    stops: Sequence[int],
    channels: int,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Go on from `weights`; yield the number of steps and the weights at each of `stops`, in ascending order.

    `weights` are those of a network without batch normalization (`settings.model` says so, too). Folded into the
    convolutions, its averages cannot drift to those of a handful of images. A batch has crops of the samples, every
    second one of `replay` if that is given: it keeps the network from forgetting what else it knew. The learning rate
    warms up over 5% of `settings.steps_per_epoch` steps and then falls to 0 by a cosine. Equal calls on the same
    machine give equal weights, and the weights at a stop do not depend on the stops after it. Raises InputError if the
    loss explodes.
    """
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    own, total = Crops(samples, settings), settings.steps_per_epoch
    with runtime.precision(settings.precision):
        model = unet.build(channels, settings.targets, settings.model)
    model.set_weights(weights)
    warmup = max(total // 20, 1)
    rate = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 100, max(total - warmup, 1), warmup_target=settings.learning_rate, warmup_steps=warmup
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=settings.weight_decay),
        loss={name: losses.bce if name == "distance" else losses.bce_dice for name in settings.targets},
        jit_compile=False,
    )

    def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
        if replay is None:
            return own.draw(number)
        return (replay if number % 2 else own).draw(number // 2)

    batches = as_dataset(draw, range(max(stops) * settings.batch_size), settings, channels)
    for step, (images, maps) in enumerate(batches, start=1):
        loss = float(model.train_on_batch(images, maps, return_dict=True)["loss"])
        if not loss < 1000:
            raise InputError(f"the loss of the fine-tuning became {loss:.4g}; check the labels, or calibrate only")
        on_step()
        if step in stops:
            yield step, model.get_weights()
