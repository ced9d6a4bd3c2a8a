"""Networks computed by TensorFlow: several times faster where the CPU multiplies bfloat16, or there is a GPU."""

import keras
import numpy as np
import tensorflow as tf

from nuclei_unet.errors import InputError
from nuclei_unet.network import runtime, unet
from nuclei_unet.settings import NetworkSettings


class TensorFlowNetwork:
    """A Keras model ready for images of any size; traced once, not once per shape, if its layers allow that."""

    def __init__(self, model: keras.Model, settings: NetworkSettings, precision: str = "auto"):
        """Take a model's weights. Raises InputError if they do not fit `settings`."""
        try:
            with runtime.precision(precision):
                network = unet.fold_batch_normalization(model, settings)
        except (ValueError, TypeError):
            raise InputError("its weights do not fit the network of its recipe; run `dvc repro train`") from None
        self.channels = model.input_shape[-1]
        self.folded = network
        signature = [tf.TensorSpec((None, None, None, self.channels), tf.float32)]
        if settings.upsampling == "bilinear":
            signature = None  # Keras' layer needs to know the size, so each new one is traced again
        self._run = tf.function(lambda images: network(images, training=False), input_signature=signature)

    def set_weights(self, weights: list[np.ndarray]) -> None:
        """Take other weights, those of a network without batch normalization; nothing is traced again."""
        self.folded.set_weights(weights)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps {target: float32 (N, H, W, 1)} of images, float32 (N, H, W, channels), 0 ... 255."""
        return {target: values.numpy() for target, values in self._run(images).items()}
