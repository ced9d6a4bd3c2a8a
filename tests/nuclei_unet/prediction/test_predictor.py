"""Maps of images of any size, in one piece and in tiles."""

import numpy as np
import pytest

from nuclei_unet.prediction import models
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.prediction.tiles import tiles


@pytest.fixture(scope="module")
def predictor(once):
    opened = models.load(threads=2)
    return Predictor(opened.network, opened.metadata.but(predict=once()))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (37, 53), (300, 517)])
def test_any_size(shape, predictor):
    maps = predictor.maps(noise(*shape))
    assert list(maps) == ["foreground", "border", "distance"]
    for values in maps.values():
        assert values.shape == shape and values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 1


def test_what_the_network_sees_of_the_image_stays_in_place(predictor):
    # A multiple of the network's size needs no padding; one pixel less is padded with what is there in the other.
    side = 2 * predictor.multiple
    image = noise(side - 1, side - 1)
    padded = np.pad(image, (0, 1), mode="symmetric")
    for name, values in predictor.maps(image).items():
        np.testing.assert_allclose(values, predictor.maps(padded)[name][:-1, :-1], atol=1e-6)


class Brightness:
    """A network whose map is the image's brightness, and that remembers the shapes it saw."""

    channels = 1

    def __init__(self):
        self.shapes = []

    def __call__(self, images):
        self.shapes.append(images.shape[1:3])
        return {"foreground": images / np.float32(255)}


def test_augmentations_are_undone_before_maps_are_averaged(described):
    image = noise(128, 256)
    network = Brightness()
    turned = Predictor(network, described(augmentations=tuple((1.0, turn) for turn in range(8))))
    np.testing.assert_allclose(turned.maps(image)["foreground"], image / 255, atol=1e-6)
    assert len(network.shapes) == 8 and len(set(network.shapes)) == 2
    network.shapes.clear()
    Predictor(network, described(augmentations=((1.0, 0), (0.65, 4)))).maps(image, 0.5)
    assert network.shapes == [(64, 128), (48, 96)]  # filled up to what the network can halve


@pytest.mark.parametrize("diameter", [12, 24, 30, 150])
def test_an_image_is_scaled_to_the_usual_size_in_tiles_too(diameter, described, monkeypatch):
    image = np.full((700, 640), 20, np.uint8)
    image[100:140, 100:140] = image[600:660, 500:560] = 200
    network = Brightness()
    predictor = Predictor(network, described(foreground_threshold=0.4, min_area=0).but(diameter=24))
    whole = predictor.labels(image, diameter=diameter)
    assert whole.shape == image.shape and whole.max() == 2
    assert max(network.shapes[0]) == pytest.approx(700 * 24 / diameter, abs=predictor.multiple)
    monkeypatch.setattr("nuclei_unet.prediction.predictor.TILE", 512)
    monkeypatch.setattr("nuclei_unet.prediction.predictor.OVERLAP", 32)
    pieces = predictor.labels(image, diameter=diameter)
    assert pieces.max() == whole.max()
    # Tiles are scaled by themselves, so an outline may differ by a pixel.
    assert ((pieces > 0) != (whole > 0)).mean() < 0.003


def test_what_label_images_are_asked_for_at_another_size(described):
    image = np.full((90, 64), 20, np.uint8)
    image[10:40, 10:40] = 200
    found = Predictor(Brightness(), described()).labels(image, (300, 213))
    assert found.shape == (300, 213) and found.max() == 1


def test_maps_of_tiles_are_those_of_the_image(described):
    image = noise(300, 200)
    predictor = Predictor(Brightness(), described())
    whole = predictor.maps(image)["foreground"]
    for core, tile in tiles(image.shape, 128, 32):
        inside = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(core, tile, strict=True))
        np.testing.assert_array_equal(predictor.maps(image[tile])["foreground"][inside], whole[core])
