"""The encoder with weights from ImageNet: it sees, it is read safely, and it says what is missing."""

import pickle

import cv2
import keras
import numpy as np
import pytest
from skimage import data

from nuclei_unet.network import encoder, imagenet, unet
from tests.refusals import refused

# Classes of ImageNet: three of cats; espresso and cup.
CATS, COFFEE = {281, 282, 285}, {967, 968}


def maps_of(channels, depth=5):
    image = keras.layers.Input((None, None, channels))
    model = keras.Model(image, encoder.efficientnet_lite0(image, depth))
    imagenet.load(model)
    return model


@pytest.mark.parametrize(("photograph", "classes"), [(data.chelsea, CATS), (data.coffee, COFFEE)])
def test_it_recognises_photographs(photograph, classes):
    weights = imagenet.read()
    image = cv2.resize(photograph(), (320, 224)).astype(np.float32)
    last = maps_of(3)(image[None])[-1].numpy()
    # The classifier, which the encoder leaves out: a convolution with its normalization, the mean, a dense layer.
    factor = weights["_bn1.weight"] / np.sqrt(weights["_bn1.running_var"] + imagenet.EPSILON)
    head = (last @ weights["_conv_head.weight"][:, :, 0, 0].T - weights["_bn1.running_mean"]) * factor
    head = np.clip(head + weights["_bn1.bias"], 0, 6).mean((0, 1, 2))
    logits = weights["_fc.weight"] @ head + weights["_fc.bias"]
    assert set(np.argsort(-logits)[:2]) <= classes


def test_grey_is_three_equal_colours():
    grey = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 1)).astype(np.float32)
    colour = np.repeat(grey, 3, axis=3)
    sizes = []
    for one, other in zip(maps_of(1)(grey), maps_of(3)(colour), strict=True):
        # The edges differ: grey and colour have the same zeros around them, after the range was changed.
        np.testing.assert_allclose(one, other, atol=1e-3)
        sizes.append(tuple(one.shape[1:]))
    assert sizes == [(32, 48, 16), (16, 24, 24), (8, 12, 40), (4, 6, 112), (2, 3, 320)]


def test_a_network_with_it_takes_all_sizes_that_it_says(model_params):
    params = model_params(encoder="efficientnet-lite0", stem_stride=2, filters=(2, 3, 4), dropout=(0.0, 0.1, 0.0))
    assert params.size_multiple == 16
    model = unet.build(1, ("foreground", "distance"), params)
    imagenet.load(model)
    maps = model(np.zeros((1, 16, 48, 1), np.float32))
    assert {name: tuple(values.shape) for name, values in maps.items()} == dict.fromkeys(maps, (1, 16, 48, 1))
    with pytest.raises(ValueError, match="this encoder needs a stem_stride of 2 and at most four filters"):
        type(params)(**params.model_dump() | {"stem_stride": 1})


class Evil:
    """A pickle of it calls a function when it is loaded."""

    def __reduce__(self):
        return print, ("this ran",)


def test_nothing_in_a_file_is_run(capsys):
    parts = [1, 1001, {}, {"a": Evil()}, []]
    with pytest.raises(pickle.UnpicklingError, match=r"builtin.*print is not allowed"):
        imagenet.parse(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    assert not capsys.readouterr().out


def test_missing_and_other_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet, "PACKAGE", "no_such_package")
    refused(r"train\.model\.encoder: the package no-such-package, .* is not installed", imagenet.read)
    monkeypatch.undo()
    monkeypatch.setattr(imagenet, "SHA256", "0" * 64)
    refused(r"efficientnet-lite0-57934424\.pth: not the weights that are expected", imagenet.read)
