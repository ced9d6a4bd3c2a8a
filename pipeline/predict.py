"""From a trained model and one image to its maps, at any size."""

from collections.abc import Sequence

import cv2
import keras
import numpy as np
import tensorflow as tf

from pipeline.params import EvaluateParams, ModelParams
from pipeline.unet import size_multiple


class Predictor:
    """A model ready for images of any size; traced once, not once a shape.

    With `views` each image is seen in several orientations and sizes, and the maps are averaged: what the network takes
    for a nucleus should not hang on which side is up, or on the magnification.
    """

    def __init__(self, model: keras.Model, params: ModelParams, views: EvaluateParams | None = None):
        self.multiple = size_multiple(params)
        self.scales = views.scales if views else (1.0,)
        # Two: upright and mirrored; four: both turned by 180 degrees, too; eight: also by 90 and 270.
        self.orientations = range(0, 8, 8 // views.orientations) if views else range(1)
        channels = model.input_shape[-1]
        signature = tf.TensorSpec((None, None, None, channels), tf.float32)
        self._run = tf.function(lambda images: model(images, training=False), input_signature=[signature])

    def maps(self, image: np.ndarray, shape: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Predict the maps of one image.

        `image` is uint8 (H, W) or (H, W, 3) as `dataset.normalize` returns it. Returns {target: float32 (H, W)} in
        [0, 1], brought to `shape` if that is given.
        """
        shape = shape or image.shape[:2]
        totals: dict[str, np.ndarray] = {}
        for scale in self.scales:
            pixels = _resize(image.astype(np.float32), [max(round(side * scale), 1) for side in image.shape[:2]])
            pixels = pixels.reshape(*pixels.shape[:2], -1)
            for number in self.orientations:
                for name, values in self._upright(_turn(pixels, number)).items():
                    values = _resize(np.ascontiguousarray(_turn_back(values, number)), shape)
                    totals[name] = totals[name] + values if name in totals else values
        return {name: values / (len(self.scales) * len(self.orientations)) for name, values in totals.items()}

    def _upright(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        height, width = pixels.shape[:2]
        down, right = -height % self.multiple, -width % self.multiple
        # Mirrored, since black would be an edge; `symmetric` also fills more than the image is large.
        pixels = np.pad(pixels, ((0, down), (0, right), (0, 0)), mode="symmetric")
        return {name: values.numpy()[0, :height, :width, 0] for name, values in self._run(pixels[None]).items()}


def _resize(pixels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    height, width = shape
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _turn(pixels: np.ndarray, number: int) -> np.ndarray:
    """Return orientation `number` of eight: a quarter turn for each of 0 ... 3, mirrored first from 4 on."""
    return np.rot90(pixels[:, ::-1] if number >= 4 else pixels, number)


def _turn_back(pixels: np.ndarray, number: int) -> np.ndarray:
    pixels = np.rot90(pixels, -number)
    return pixels[:, ::-1] if number >= 4 else pixels
