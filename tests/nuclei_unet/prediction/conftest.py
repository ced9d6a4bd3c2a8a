"""The `evaluate` section, for images as they are."""

import pytest

from tests.metadata import metadata_of


@pytest.fixture(scope="module")
def once(settings):
    """Return an `evaluate` section that predicts an image once, as it is, with other values for some keys."""
    plain = {"augmentations": ((1.0, 0),), "outline_range": 0.0}
    return lambda **values: settings.evaluate.model_copy(update=plain | values)


@pytest.fixture(scope="module")
def described(settings, once):
    """Return the metadata of a network that takes images at their own size, with `once` of other values."""
    return lambda **values: metadata_of(settings, settings.train.model, predict=once(**values))
