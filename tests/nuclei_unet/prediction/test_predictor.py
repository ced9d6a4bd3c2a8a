"""Maps of images of any size, in one piece and in tiles."""

import numpy as np
import pytest

from nuclei_unet.labels import components
from nuclei_unet.network import unet
from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.prediction.tiles import tiles


@pytest.fixture(scope="module")
def predictor(model_params, views):
    params = model_params(stem_stride=2)
    return Predictor(TensorFlowNetwork(unet.build(1, ("foreground", "border"), params), params), params, views())


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (37, 53), (256, 256), (300, 517)])
def test_any_size(shape, predictor):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    maps = predictor.maps(image)
    assert list(maps) == ["foreground", "border"]
    for values in maps.values():
        assert values.shape == shape and values.dtype == np.float32
        assert 0 <= values.min() <= values.max() <= 1


def test_what_the_network_sees_of_the_image_stays_in_place(predictor):
    # 8 x 12 needs no padding; 7 x 11 is padded with what is there in the other.
    image = np.random.default_rng(0).integers(0, 256, (7, 11), dtype=np.uint8)
    padded = np.pad(image, ((0, 1), (0, 1)), mode="symmetric")
    for name, values in predictor.maps(image).items():
        np.testing.assert_allclose(values, predictor.maps(padded)[name][:7, :11], atol=1e-6)


def test_colour_images_and_maps_at_another_size(model_params, views):
    params = model_params()
    predictor = Predictor(TensorFlowNetwork(unet.build(3, ("foreground",), params), params), params, views())
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    native, larger = predictor.maps(image)["foreground"], predictor.maps(image, (18, 42))["foreground"]
    assert native.shape == (9, 14) and larger.shape == (18, 42)
    assert native.min() <= larger.min() <= larger.max() <= native.max()
    np.testing.assert_array_equal(predictor.maps(image, (9, 14))["foreground"], native)


def test_maps_of_blocks_are_the_maps_of_the_image(predictor):
    image = np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8)
    whole = predictor.maps(image)
    for core, tile in tiles(image.shape, 128, 32):
        inside = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(core, tile, strict=True))
        for name, values in predictor.maps(image[tile]).items():
            np.testing.assert_allclose(values[inside], whole[name][core], atol=1e-6)


@pytest.mark.parametrize("shape", [(900, 640), (300, 213), (1800, 1280), (1, 1)])
def test_a_label_image_of_another_size_in_blocks_too(shape, predictor, monkeypatch):
    image = np.full((900, 640), 20, np.uint8)
    image[100:140, 100:140] = image[700:760, 500:560] = 200

    def found(maps, settings, image=None):
        labels = components(image > 100, connectivity=4)
        return labels.astype(np.uint16)

    monkeypatch.setattr("nuclei_unet.prediction.predictor.label_nuclei", found)
    whole = predictor.labels(image, shape)
    assert whole.shape == shape
    monkeypatch.setattr("nuclei_unet.prediction.predictor.TILE", 512)
    pieces = predictor.labels(image, shape)
    assert pieces.shape == shape and pieces.max() == whole.max()
    # Tiles are resized by themselves, so an outline may differ by a pixel.
    assert ((pieces > 0) != (whole > 0)).mean() < 0.003
