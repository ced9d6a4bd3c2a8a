"""Synthetic images, annotators of different style, and a model that adapts in seconds."""

import cv2
import numpy as np

from nuclei_unet.prediction import models
from nuclei_unet.prediction.segmenter import Segmenter
from tests.nuclei_unet.nuclei import drawn


def image(seed, shape=(96, 112), count=7):
    """Return a synthetic fluorescence image, uint8 (H, W), and its nuclei."""
    rng = np.random.default_rng(seed)
    places = []
    while len(places) < count:
        row, column = rng.uniform(12, shape[0] - 12), rng.uniform(12, shape[1] - 12)
        radius = rng.uniform(6, 10)
        if all(np.hypot(row - r, column - c) > radius + other + 4 for r, c, other in places):
            places.append((row, column, radius))
    labels = drawn(shape, *places)
    pixels = cv2.GaussianBlur(np.where(labels > 0, 170.0, 25.0), (0, 0), 1.5) + rng.normal(0, 4, shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


def wide_annotator():
    """Return a segmenter that draws all outlines 1 px wider than the pretrained model, and the metadata of that."""
    metadata = models.describe(None)[0]
    return Segmenter.load(predict=metadata.predict.model_copy(update={"outline_offset": 1.0}), gpu=False), metadata


def random_labels(seed, shape=(96, 112)):
    """Return nuclei that have nothing to do with an image."""
    rng = np.random.default_rng(seed)
    return drawn(shape, *((*rng.uniform(8, 88, 2), rng.uniform(3, 9)) for _ in range(7)))
