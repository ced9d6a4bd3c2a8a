"""Nuclei by Otsu's threshold."""

import numpy as np
import pytest

from nuclei_unet.prediction.otsu import otsu_nuclei
from tests.nuclei_unet.nuclei import SEPARATE, TOUCHING, assert_same_nuclei


@pytest.mark.parametrize("truth", [TOUCHING, SEPARATE])
def test_otsu_finds_drawn_nuclei(truth):
    noise = np.random.default_rng(0).integers(0, 20, truth.shape)
    grey = (np.where(truth > 0, 180, 20) + noise).astype(np.uint8)
    labels = otsu_nuclei(grey)
    assert labels.dtype == np.uint16
    assert_same_nuclei(labels, truth)
    np.testing.assert_array_equal(otsu_nuclei(np.dstack([grey, grey, grey])), labels)


@pytest.mark.parametrize("image", [np.zeros((1, 1)), np.full((7, 9), 255), np.full((7, 9, 3), 40)])
def test_otsu_of_a_constant_image_finds_nothing(image):
    np.testing.assert_array_equal(otsu_nuclei(image.astype(np.uint8)), np.zeros(image.shape[:2]))
