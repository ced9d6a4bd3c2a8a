"""Large images cut into tiles, and their nuclei joined again."""

import numpy as np
import pytest

from nuclei_unet.evaluation import metrics
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.prediction.tiles import tiles


@pytest.mark.parametrize("shape", [(64, 64), (64, 200), (130, 257)])
def test_cores_tile_the_image_and_lie_in_their_tiles(shape):
    covered = np.zeros(shape, int)
    for core, tile in tiles(shape, 64, 16):
        covered[core] += 1
        for inner, outer, side in zip(core, tile, shape, strict=True):
            assert outer.start == max(inner.start - 16, 0) and outer.stop == min(inner.stop + 16, side)
    assert (covered == 1).all()


class Bright(Predictor):
    """Sees nuclei where it is bright, and their middles where it is brightest."""

    def __init__(self, settings):
        self.predict, self.usual, self.seen = settings, None, []

    def maps(self, image, scale=1.0, shape=None):
        self.seen.append(image.shape)
        return {"foreground": (image > 0).astype(np.float32), "distance": image / np.float32(255)}


def cones(shape, centres, radius):
    """Draw nuclei, brightest in the middle."""
    image = np.zeros(shape, np.uint8)
    rows, columns = np.indices(shape)
    for row, column in centres:
        distance = np.hypot(rows - row, columns - column)
        image = np.maximum(image, np.clip(255 * (1 - distance / radius), 0, 255).astype(np.uint8))
    return image


def test_nuclei_found_tile_by_tile_are_those_of_the_whole_image(small_tiles, once):
    # Also on the seams (128, 256) and where four tiles meet; touching ones, too.
    grid = [(row, column) for row in range(8, 400, 24) for column in range(8, 300, 24)]
    image = cones((400, 300), grid, 13)
    predictor = Bright(once(min_area=5))
    found, whole = predictor.labels(image), label_nuclei(Bright(once()).maps(image), once(min_area=5))
    assert len(predictor.seen) == 12 and max(max(shape) for shape in predictor.seen) <= 192
    assert found.dtype == np.uint16 and found.max() == whole.max() == len(grid)
    # Where nuclei touch, pixels as near to one as to the other may go to either.
    ious = metrics.instance_counts(whole, found).matched_ious
    assert len(ious) == len(grid) and min(ious) > 0.9
    np.testing.assert_array_equal(found > 0, whole > 0)


def test_a_nucleus_larger_than_the_tiles_stays_one(small_tiles, once):
    image = cones((500, 500), [(250, 250)], 200)
    # Its slopes are cut by the tiles' edges, but it has no second summit.
    found = Bright(once(prominence=0.9)).labels(image)
    assert found.max() == 1
    np.testing.assert_array_equal(found > 0, image > 0)


@pytest.mark.parametrize("value", [0, 255])
def test_empty_and_full_images_tile_by_tile(value, small_tiles, once):
    found = Bright(once()).labels(np.full((200, 300), value, np.uint8))
    assert found.shape == (200, 300) and found.max() == (value > 0) and (found == (value > 0)).all()


def test_more_nuclei_than_16_bits_hold(small_tiles, once):
    image = np.zeros((1030, 1030), np.uint8)
    image[::4, ::4] = 255
    found = Bright(once(min_area=1, smoothing=0)).labels(image)
    assert found.dtype == np.uint32 and found.max() == (image > 0).sum() == np.unique(found).size - 1


def test_images_that_fit_are_one_tile(small_tiles, once):
    predictor = Bright(once())
    predictor.labels(np.zeros((192, 100), np.uint8))
    assert predictor.seen == [(192, 100)]
