"""From a trained model and one image to its maps, at any size."""

import cv2
import keras
import numpy as np
import tensorflow as tf

from pipeline.params import ModelParams
from pipeline.unet import size_multiple


class Predictor:
    """A model ready for images of any size; traced once, not once a shape.

    With `flips` each image is seen in all eight orientations, and the maps are averaged: what the network takes for a
    nucleus should not hang on which side is up.
    """

    def __init__(self, model: keras.Model, params: ModelParams, flips: bool = False):
        self.multiple = size_multiple(params)
        self.orientations = range(8 if flips else 1)
        channels = model.input_shape[-1]
        signature = tf.TensorSpec((None, None, None, channels), tf.float32)
        self._run = tf.function(lambda images: model(images, training=False), input_signature=[signature])

    def maps(self, image: np.ndarray, shape: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Predict the maps of one image.

        `image` is uint8 (H, W) or (H, W, 3) as `dataset.normalize` returns it. Returns {target: float32 (H, W)} in
        [0, 1], brought to `shape` if that is given.
        """
        pixels = image.reshape(*image.shape[:2], -1).astype(np.float32)
        seen = [
            {name: _turn_back(values, number) for name, values in self._upright(_turn(pixels, number)).items()}
            for number in self.orientations
        ]
        maps = {name: np.mean([one[name] for one in seen], axis=0) for name in seen[0]}
        if shape is not None and shape != image.shape[:2]:
            maps = {name: cv2.resize(values, shape[::-1]) for name, values in maps.items()}
        return maps

    def _upright(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        height, width = pixels.shape[:2]
        down, right = -height % self.multiple, -width % self.multiple
        # Mirrored, since black would be an edge; `symmetric` also fills more than the image is large.
        pixels = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="symmetric")
        return {name: values.numpy()[0, :height, :width, 0] for name, values in self._run(pixels[None]).items()}


def _turn(pixels: np.ndarray, number: int) -> np.ndarray:
    """Return orientation `number` of eight: a quarter turn for each of 0 ... 3, mirrored first from 4 on."""
    return np.rot90(pixels[:, ::-1] if number >= 4 else pixels, number)


def _turn_back(pixels: np.ndarray, number: int) -> np.ndarray:
    pixels = np.rot90(pixels, -number)
    return pixels[:, ::-1] if number >= 4 else pixels
