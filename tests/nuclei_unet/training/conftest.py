"""Trainings that are over in seconds."""

import pytest

from nuclei_unet.training import targets
from tests.nuclei_unet.training.examples import AUGMENTED


@pytest.fixture(scope="module")
def train_params(settings, model_params):
    """Return a `train` section that is over in seconds and changes no crop, with other values for some keys."""
    still = {"flip": False, "rotate": False, "zoom": (1.0, 1.0), "gamma": (1.0, 1.0)}
    still |= dict.fromkeys(("contrast", "noise", "blur", "invert", "cytoplasm", "transfer", "mix"), 0.0)
    plain = {
        "precision": "float32",
        "targets": targets.TARGETS,
        "diameter": None,
        "crop_size": 32,
        "type_balance": 0.0,
        "batch_size": 2,
        "epochs": 1,
        "steps_per_epoch": 2,
        "model": model_params(),
    }

    def make(augment=(), **values):
        section = settings.train.augment.model_copy(update=still | dict(augment))
        return settings.train.model_copy(update=plain | {"augment": section} | values)

    return make


@pytest.fixture(scope="module")
def long_training(train_params, model_params):
    """Return parameters with all that a training carries from epoch to epoch."""
    carried = {"model": model_params(dropout=(0.2, 0.2)), "optimizer": "adamw", "schedule": "cosine"}
    return train_params(AUGMENTED, epochs=4, targets=("foreground", "border"), type_balance=0.5, **carried)
