"""From a trained model and one image to its maps and its nuclei, at any size."""

from collections.abc import Sequence

import cv2
import keras
import numpy as np
import tensorflow as tf

from nuclei_unet.errors import InputError
from nuclei_unet.network import runtime, unet
from nuclei_unet.prediction.blocks import add_block, blocks, relative
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.settings import NetworkSettings, PredictSettings

# Side of a block in pixels, as the network sees it. It limits the memory that an image of any size takes.
BLOCK = 2560
# Pixels around a block's core that are predicted and thrown away. They show the network the core's surroundings, and
# are wider than a large nucleus.
MARGIN = 128


class Predictor:
    """A model ready for images of any size; traced once, not once per shape.

    Each image is predicted in the orientations and sizes of `views`, and the maps are averaged. The result should not
    depend on the image's orientation or magnification.
    """

    def __init__(self, model: keras.Model, settings: NetworkSettings, views: PredictSettings, precision: str = "auto"):
        self.views = views
        self.multiple = unet.size_multiple(settings)
        # Two: upright and mirrored; four: both turned by 180 degrees, too; eight: also by 90 and 270.
        self.orientations = range(0, 8, 8 // views.orientations)
        try:
            with runtime.precision(precision):
                network = unet.fold_batch_normalization(model, settings)
        except (ValueError, TypeError):
            raise InputError("its weights do not fit the network of its recipe; run `dvc repro train`") from None
        signature = tf.TensorSpec((None, None, None, model.input_shape[-1]), tf.float32)
        self._run = tf.function(lambda images: network(images, training=False), input_signature=[signature])

    def labels(self, image: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Find the nuclei of one image.

        `image` is uint8 (H, W) or (H, W, 3) as `images.normalize` returns it. Returns a label image as
        `instances.label_nuclei` does, of `shape` if that is given. An image larger than a block is processed block by
        block, so memory grows only by the image and its label image.
        """
        # A multiple of 128, so pooling falls on the same pixels as in the whole image, also at half its size.
        core = max(int(BLOCK / max(self.views.scales)) - 2 * MARGIN, 128) // 128 * 128
        if max(image.shape[:2]) <= core + 2 * MARGIN or shape not in (None, image.shape[:2]):
            return label_nuclei(self.maps(image, shape), self.views, _resize(image, shape or image.shape[:2]))
        labels, count = np.zeros(image.shape[:2], np.uint32), 0
        for inner, outer in blocks(image.shape[:2], core, MARGIN):
            part = label_nuclei(self.maps(image[outer]), self.views, image[outer])
            count = add_block(labels[outer], part, relative(inner, outer), count)
        return labels if count >= 2**16 else labels.astype(np.uint16)

    def maps(self, image: np.ndarray, shape: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Predict the maps of one image, all at once.

        Returns {target: float32 (H, W)} in [0, 1], resized to `shape` if that is given.
        """
        shape = shape or image.shape[:2]
        totals: dict[str, np.ndarray] = {}
        for scale in self.views.scales:
            pixels = _resize(image.astype(np.float32), [max(round(side * scale), 1) for side in image.shape[:2]])
            pixels = pixels.reshape(*pixels.shape[:2], -1)
            for number in self.orientations:
                for name, values in self._upright(_turn(pixels, number)).items():
                    values = _resize(np.ascontiguousarray(_turn_back(values, number)), shape)
                    totals[name] = totals[name] + values if name in totals else values
        return {name: values / (len(self.views.scales) * len(self.orientations)) for name, values in totals.items()}

    def _upright(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        height, width = pixels.shape[:2]
        down, right = -height % self.multiple, -width % self.multiple
        # Mirrored, since black would be an edge. `symmetric` can also add more pixels than the image has.
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
