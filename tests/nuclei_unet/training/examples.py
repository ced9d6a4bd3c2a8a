"""Images to train with, and trainings that run through or are stopped."""

import numpy as np

from nuclei_unet.network import runtime
from nuclei_unet.sample import ArraySample
from nuclei_unet.training import fit
from pipeline import params
from tests import PARAMS


def sample(number, shape=(32, 32), image_type="small-fluorescent"):
    """Return an image that is its own foreground: nuclei 255, background 0."""
    labels = np.zeros(shape, np.uint16)
    rng = np.random.default_rng(number)
    for label in range(1, 5):
        row, column = rng.integers(0, np.maximum(np.array(shape) - 7, 1))
        labels[row : row + 7, column : column + 7] = label
    return ArraySample(f"image{number}", "train", image_type, ((labels > 0) * 255).astype(np.uint8), labels)


AUGMENTED = {"flip": True, "rotate": True, "zoom": (0.6, 1.8), "gamma": (0.6, 1.6), "contrast": 0.3, "noise": 0.05}
AUGMENTED |= {"cytoplasm": 0.5, "transfer": 0.5, "mix": 0.5}


def tiny(strategy):
    """Return the settings of a tiny network in four epochs; the batch normalization sees that batches are whole."""
    settings = params.load(PARAMS).train
    network = {"encoder": "none", "stem_stride": 1, "filters": (2, 3), "dropout": (0.0, 0.0)}
    small = {"precision": "float32", "targets": ("foreground", "border"), "crop_size": 32, "batch_size": 4}
    small |= {"strategy": strategy, "epochs": 4, "steps_per_epoch": 3, "diameter": None}
    return settings.model_copy(update=small | {"model": settings.model.model_copy(update=network)})


def images():
    """Return training and validation images for `tiny`."""
    made = [sample(n, (40, 48)) for n in range(11)]
    return made[:6], made[6:]


def trained(settings, calls=None, state=None, log_epoch=None, log_picture=None):
    runtime.configure(settings)
    samples = [sample(n, (40, 48), image_type=f"image_type{n % 2}") for n in range(4)]
    log_epoch = log_epoch or (lambda *row: None if calls is None else calls.append(row))
    return fit.train(samples[:3], samples[3:], settings, 1, log_epoch, state, log_picture)


class Stopped(Exception):
    """What a test stops a training with."""


def stop_at(last):
    def log_epoch(epoch, _):
        if epoch == last:
            raise Stopped

    return log_epoch


def same_training(one, other):
    for weights, others in zip(one[0].get_weights(), other[0].get_weights(), strict=True):
        np.testing.assert_array_equal(weights, others)
    assert one[1].equals(other[1])
