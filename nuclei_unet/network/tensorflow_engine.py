"""Networks computed by TensorFlow: several times faster where the CPU multiplies bfloat16, or there is a GPU."""

import keras
import numpy as np
import tensorflow as tf

from nuclei_unet.errors import InputError
from nuclei_unet.network import runtime, unet
from nuclei_unet.settings import NetworkSettings


class TensorFlowNetwork:
    """A Keras model ready for images of any size; traced once, not once per shape, if its layers allow that.

    Its weights are constants of the graph: TensorFlow rounds and arranges them once, not for each image. That saves
    about 4 ms an image with the default network, a quarter of what 256x256 pixels take.
    """

    def __init__(self, model: keras.Model, settings: NetworkSettings, precision: str = "auto"):
        """Take a model's weights. Raises InputError if they do not fit `settings`."""
        try:
            with runtime.precision(precision):
                network = unet.fold_batch_normalization(model, settings)
        except (ValueError, TypeError):
            raise InputError("its weights do not fit the network of its recipe; run `dvc repro train`") from None
        self.channels = model.input_shape[-1]
        self.folded = network
        # Keras' bilinear layer needs to know the size, so each new one is traced again.
        any_size = [tf.TensorSpec((None, None, None, self.channels), tf.float32)]
        self._signature = None if settings.upsampling == "bilinear" else any_size
        self._run = self._traced()

    def _traced(self) -> tf.types.experimental.PolymorphicFunction:
        network = self.folded
        constants = [[w.numpy() for w in ws] for ws in (network.trainable_variables, network.non_trainable_variables)]
        return tf.function(
            lambda images: network.stateless_call(*constants, images, training=False)[0],
            input_signature=self._signature,
        )

    def set_weights(self, weights: list[np.ndarray]) -> None:
        """Take other weights, those of a network without batch normalization; traced again, a third of a second."""
        self.folded.set_weights(weights)
        self._run = self._traced()

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps {target: float32 (N, H, W, 1)} of images, float32 (N, H, W, channels), 0 ... 255."""
        return {target: values.numpy() for target, values in self._run(images).items()}
