"""A tiny network."""

import pytest


@pytest.fixture(scope="module")
def model_params(settings):
    """Return a `train.model` section of a tiny network, with other values for some of its keys."""
    plain = {"encoder": "none", "stem_stride": 1, "filters": (2, 3), "dropout": (0.0, 0.1), "normalization": "batch",
             "join": "concatenate"}  # fmt: skip
    return lambda **values: settings.train.model.model_copy(update=plain | values)
