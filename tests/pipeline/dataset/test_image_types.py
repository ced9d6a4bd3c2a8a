"""The image types: drawn, made by hand, published."""

import numpy as np
import pytest

from nuclei_unet.images import normalize, to_rgb
from pipeline.dataset import synthetic
from pipeline.dataset.image_types import LARGE_NUCLEUS, image_type_of
from tests.images import field

EXPECTED_KINDS = {
    "small fluorescent": {"small-fluorescent"},
    "large fluorescent": {"large-fluorescent"},
    "purple": {"purple-on-purple", "purple-on-white"},
    "grey": {"grey-tissue"},
}


@pytest.mark.parametrize("name", synthetic.KINDS)
def test_kind_of_drawn_images(name, settings):
    for seed in range(4):
        kind = synthetic.KINDS[name]
        rgb, labels = synthetic.draw_frame(kind, np.random.default_rng(seed), kind.crop)
        assert image_type_of(rgb, np.median(np.bincount(labels.ravel())[1:])) in EXPECTED_KINDS[name]
        # The sum of all that normalize does: nuclei are brighter than the rest.
        seen = normalize(rgb, settings.preprocess)
        assert seen[labels > 0].mean() > seen[labels == 0].mean() + 30


@pytest.mark.parametrize(
    ("background", "image_type"),
    [
        ((240, 240, 240), "purple-on-white"),
        ((220, 180, 225), "purple-on-purple"),
        ((230, 220, 180), "purple-on-yellow"),
    ],
)
def test_kind_by_the_colour_of_the_background(background, image_type):
    image = np.full((40, 40, 3), background, np.uint8)
    image[8:28, 8:28] = (110, 60, 150)
    assert image_type_of(image, 400) == image_type


def test_the_size_of_nuclei_counts_in_fluorescence_only():
    dark, grey = to_rgb(field(10, 90)), to_rgb(field(230, 90))
    assert image_type_of(dark, LARGE_NUCLEUS - 1) == "small-fluorescent"
    assert image_type_of(dark, LARGE_NUCLEUS) == "large-fluorescent"
    assert image_type_of(grey, LARGE_NUCLEUS) == "grey-tissue"


def test_kinds_of_the_published_images(published_training, known_groups):
    by_eye = {
        ("white", "black"): "small-fluorescent",
        ("purple", "purple"): "purple-on-purple",
        ("purple", "white"): "purple-on-white",
        ("purple", "yellow"): "purple-on-yellow",
        ("black", "white"): "grey-tissue",
    }
    expected = {key: by_eye[row.foreground, row.background] for key, row in known_groups.iterrows()}
    assert [key for key, (image_type, _) in published_training.items() if image_type != expected[key]] == []
