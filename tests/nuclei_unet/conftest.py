"""Settings for tests: of a tiny network, of maps drawn by hand, of small tiles."""

import pytest


@pytest.fixture(scope="module")
def model_params(settings):
    """Return a `train.model` section of a tiny network, with other values for some of its keys."""
    plain = {"encoder": "none", "stem_stride": 1, "filters": (2, 3), "dropout": (0.0, 0.1), "normalization": "batch",
             "join": "concatenate"}  # fmt: skip
    return lambda **values: settings.train.model.model_copy(update=plain | values)


@pytest.fixture
def evaluate(settings):
    """Return an `evaluate` section with other values for some of its keys."""
    plain = {"foreground_threshold": 0.5, "border_weight": 1.0, "min_area": 0, "smoothing": 0.5, "prominence": 0.05}
    return lambda **values: settings.evaluate.model_copy(update=plain | values)


@pytest.fixture
def small_tiles(monkeypatch):
    """Let 192 pixels be a tile: cores of 128 pixels."""
    monkeypatch.setattr("nuclei_unet.prediction.predictor.TILE", 192)
    monkeypatch.setattr("nuclei_unet.prediction.predictor.OVERLAP", 32)
