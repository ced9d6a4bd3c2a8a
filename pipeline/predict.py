"""From a trained model and one image to its maps, at any size."""

import cv2
import keras
import numpy as np
import tensorflow as tf

from pipeline.params import ModelParams
from pipeline.unet import size_multiple


class Predictor:
    """A model ready for images of any size; traced once, not once a shape."""

    def __init__(self, model: keras.Model, params: ModelParams):
        self.multiple = size_multiple(params)
        channels = model.input_shape[-1]
        signature = tf.TensorSpec((None, None, None, channels), tf.float32)
        self._run = tf.function(lambda images: model(images, training=False), input_signature=[signature])

    def maps(self, image: np.ndarray, shape: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Predict the maps of one image.

        `image` is uint8 (H, W) or (H, W, 3) as `dataset.normalize` returns it. Returns {target: float32 (H, W)} in
        [0, 1], brought to `shape` if that is given.
        """
        height, width = image.shape[:2]
        pixels = image.reshape(height, width, -1).astype(np.float32)
        down, right = -height % self.multiple, -width % self.multiple
        # Mirrored, since black would be an edge; `symmetric` also fills more than the image is large.
        pixels = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="symmetric")
        maps = {name: values.numpy()[0, :height, :width, 0] for name, values in self._run(pixels[None]).items()}
        if shape is not None and shape != (height, width):
            maps = {name: cv2.resize(values, shape[::-1]) for name, values in maps.items()}
        return maps
