"""Drawn images, annotators of different style, and a model that adapts in seconds."""

import cv2
import numpy as np

from nuclei_unet.network import keras_file
from nuclei_unet.prediction import models
from tests.nuclei_unet.nuclei import drawn

# A fine-tuning that is over in seconds.
QUICK = {"crop_size": 64, "batch_size": 2, "precision": "float32"}


def image(seed, shape=(96, 112), count=7):
    """Return a drawn fluorescence image, uint8 (H, W), and its nuclei."""
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


def write_model(path):
    """Write the pretrained model, with the two fast views of each image, and return its metadata."""
    network, metadata, _ = models.load_weights(None)
    metadata = metadata.model_copy(update={"predict": metadata.predict.with_views("fast")})
    keras_file.save(network, path, metadata)
    return metadata


def random_labels(seed, shape=(96, 112)):
    """Return nuclei that have nothing to do with an image."""
    rng = np.random.default_rng(seed)
    return drawn(shape, *((*rng.uniform(8, 88, 2), rng.uniform(3, 9)) for _ in range(7)))
