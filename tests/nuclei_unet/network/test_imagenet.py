"""The encoder with weights from ImageNet: it sees, it is read safely, and it says what is missing."""

import io
import pickle
from collections import OrderedDict

import cv2
import keras
import numpy as np
import pytest
from skimage import data

from nuclei_unet.errors import InputError
from nuclei_unet.network import encoder, imagenet, unet

# Classes of ImageNet: three of cats; espresso and cup.
CATS, COFFEE = {281, 282, 285}, {967, 968}


def maps_of(channels, depth=encoder.DEEPEST):
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


@pytest.mark.parametrize("depth", range(1, encoder.DEEPEST + 1))
def test_depth(depth):
    maps = keras.Model(image := keras.layers.Input((32, 64, 1)), encoder.efficientnet_lite0(image, depth)).output_shape
    maps = maps if isinstance(maps, list) else [maps]
    assert [shape[1] for shape in maps] == [32 // 2**level for level in range(1, depth + 1)]


def test_a_network_with_it_takes_all_sizes_that_it_says(model_params):
    params = model_params(encoder="efficientnet-lite0", stem_stride=2, filters=(2, 3, 4), dropout=(0.0, 0.1, 0.0))
    assert params.size_multiple == 16
    model = unet.build(1, ("foreground", "distance"), params)
    imagenet.load(model)
    maps = model(np.zeros((1, 16, 48, 1), np.float32))
    assert {name: tuple(values.shape) for name, values in maps.items()} == {
        "foreground": (1, 16, 48, 1),
        "distance": (1, 16, 48, 1),
    }
    with pytest.raises(ValueError, match="this encoder needs a stem_stride of 2 and at most four filters"):
        type(params)(**params.model_dump() | {"stem_stride": 1})


class Evil:
    """A pickle of it calls a function when it is loaded."""

    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("position", range(5))
def test_nothing_in_a_file_is_run(position, capsys):
    parts = [1, 1001, {}, OrderedDict(), []]
    parts[position] = Evil()
    with pytest.raises(pickle.UnpicklingError, match=r"builtin.*print is not allowed"):
        imagenet.parse(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    assert not capsys.readouterr().out


class Tensor:
    """Pickled as PyTorch does it: a storage, an offset, a shape and steps."""

    def __init__(self, *parts):
        self.parts = parts


class Writer(pickle.Pickler):
    """Writes storages as persistent ids."""

    def persistent_id(self, thing):
        return thing if isinstance(thing, tuple) and thing[:1] == ("storage",) else None


def file_of(offset, shape, steps, monkeypatch):
    """Return a file with one tensor, the numbers 0 ... 5."""
    parts = io.BytesIO()
    for part in (1, 1001, {}):
        parts.write(pickle.dumps(part, protocol=2))
    storage = ("storage", "<f4", "0", "cpu", 6)
    monkeypatch.setattr(imagenet._Restricted, "find_class", lambda *_: lambda *arguments: arguments)

    class Rebuilt(Tensor):
        def __reduce__(self):
            return print, self.parts

    Writer(parts, protocol=2).dump({"a": Rebuilt(storage, offset, shape, steps)})
    parts.write(pickle.dumps(["0"], protocol=2))
    return parts.getvalue() + (6).to_bytes(8, "little") + np.arange(6, dtype="<f4").tobytes()


def test_axes_in_any_order_are_read(monkeypatch):
    np.testing.assert_array_equal(imagenet.parse(file_of(0, (2, 3), (3, 1), monkeypatch))["a"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(imagenet.parse(file_of(0, (2, 3), (1, 2), monkeypatch))["a"], [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize(("offset", "shape", "steps"), [(1, (2, 3), (3, 1)), (0, (7,), (1,)), (-1, (2,), (1,))])
def test_a_tensor_outside_of_its_storage_is_refused(offset, shape, steps, monkeypatch):
    with pytest.raises(pickle.UnpicklingError, match="outside of its storage"):
        imagenet.parse(file_of(offset, shape, steps, monkeypatch))


def test_missing_and_other_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(imagenet, "PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"train\.model\.encoder: the package no-such-package, .* is not installed"):
        imagenet.read()
    monkeypatch.undo()
    monkeypatch.setattr(imagenet, "SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"efficientnet-lite0-57934424\.pth: not the weights that are expected"):
        imagenet.read()
