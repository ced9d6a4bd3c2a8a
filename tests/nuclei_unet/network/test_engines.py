"""TensorFlow and ONNX Runtime compute the same network, each from the other's file."""

import keras
import numpy as np
import onnx
import pytest
from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork
from onnx import helper

from nuclei_unet.errors import InputError
from nuclei_unet.network import onnx_file, unet
from nuclei_unet.network.metadata import Diameters, Metadata
from nuclei_unet.prediction.engine import CARD, OnnxNetwork
from tests.recipes import metadata_of

SHAPES = [(1, 16, 16), (1, 32, 48), (2, 64, 16)]


@pytest.fixture
def make(model_params, settings):
    """Return a function that builds a network of random weights, moved normalizations included, and its metadata."""

    def build(channels=1, **changes):
        keras.utils.set_random_seed(1)
        params = model_params(**{"stem_stride": 2, "filters": (3, 5), "dropout": (0.1, 0.0)} | changes)
        metadata = metadata_of(settings, params)
        metadata = metadata.model_copy(
            update={"normalize": metadata.normalize.model_copy(update={"channels": channels})}
        )
        model = unet.build(channels, metadata.targets, params)
        rng = np.random.default_rng(0)
        for weight in model.weights:
            weight.assign(weight + rng.uniform(0.01, 0.05, weight.shape))
        return model, Metadata(metadata=metadata, diameters=Diameters(low=5, typical=20, high=60))

    return build


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stem_stride": 1},
        {"normalization": "none"},
        {"upsampling": "nearest"},
        {"upsampling": "bilinear"},
        {"upsampling": "transposed"},
        {"channels": 3},
        {"filters": (2, 3, 4, 5), "dropout": (0.0, 0.0, 0.2, 0.0)},
        {"encoder": "efficientnet-lite0"},
        {"encoder": "efficientnet-lite0", "channels": 3, "filters": (2, 3, 4), "dropout": (0.0, 0.0, 0.2)},
    ],
    ids=str,
)
def test_both_engines_give_the_same_maps(changes, half, make, tmp_path):
    model, metadata = make(**changes)
    path = tmp_path / "model.onnx"
    onnx_file.save(model, path, metadata, half=half)
    light = OnnxNetwork(path.read_bytes(), "model.onnx", 2)
    assert light.metadata == metadata and light.channels == model.input_shape[-1]
    folded = metadata.network.model_copy(update={"normalization": "none"})
    back = TensorFlowNetwork(
        onnx_file.load(path.read_bytes(), "model.onnx", metadata.targets, folded), folded, "float32"
    )
    own = TensorFlowNetwork(model, metadata.network, "float32")
    for n, height, width in SHAPES:
        images = np.random.default_rng(2).uniform(0, 255, (n, height, width, light.channels)).astype(np.float32)
        found, wanted, again = light(images), own(images), back(images)
        assert list(found) == list(wanted) == list(again) == list(metadata.targets)
        for target, values in found.items():
            assert values.shape == (n, height, width, 1) and values.dtype == np.float32
            np.testing.assert_allclose(values, wanted[target], atol=0.05 if half else 1e-4)
            np.testing.assert_allclose(values, again[target], atol=1e-4)


def test_other_weights_give_other_maps(make):
    model, metadata = make()
    network = TensorFlowNetwork(model, metadata.network, "float32")
    image = np.random.default_rng(2).uniform(0, 255, (1, 16, 16, 1)).astype(np.float32)
    before, weights = network(image), network.folded.get_weights()
    network.set_weights([2 * values for values in weights])
    changed = network(image)
    network.set_weights(weights)
    for target, values in network(image).items():
        np.testing.assert_array_equal(values, before[target])
        assert np.abs(values - changed[target]).max() > 1e-3


def test_the_same_model_gives_the_same_bytes(make, tmp_path):
    for name in ("a", "b"):
        onnx_file.save(*(make()[0], tmp_path / name, make()[1]), half=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_threads_do_not_change_results(make, tmp_path):
    model, metadata = make(filters=(8, 16), dropout=(0.0, 0.0))
    onnx_file.save(model, tmp_path / "m.onnx", metadata)
    data = (tmp_path / "m.onnx").read_bytes()
    images = np.random.default_rng(2).uniform(0, 255, (1, 256, 208, 1)).astype(np.float32)
    one, three = (OnnxNetwork(data, "m.onnx", threads)(images) for threads in (1, 3))
    for target in one:
        np.testing.assert_array_equal(one[target], three[target])


def test_what_is_no_model_of_ours_is_named(make, tmp_path):
    model, metadata = make()
    onnx_file.save(model, tmp_path / "m.onnx", metadata)
    data = (tmp_path / "m.onnx").read_bytes()
    for broken in (b"", b"no model", data[: len(data) // 2]):
        with pytest.raises(InputError, match=r"^x\.onnx: not an ONNX file that can be loaded"):
            OnnxNetwork(broken, "x.onnx")
    foreign = onnx.load_model_from_string(data)
    del foreign.metadata_props[:]
    with pytest.raises(InputError, match=r"x\.onnx: an ONNX file of another program"):
        OnnxNetwork(foreign.SerializeToString(), "x.onnx")
    helper.set_model_props(foreign, {CARD: "{}"})
    with pytest.raises(
        InputError, match=r"x\.onnx: what it says about itself cannot be read \(metadata: Field required"
    ):
        OnnxNetwork(foreign.SerializeToString(), "x.onnx")
    other = metadata.model_copy(update={"targets": ("foreground",)})
    helper.set_model_props(foreign, {CARD: Metadata(metadata=other).dump()})
    with pytest.raises(InputError, match=r"x\.onnx: its network does not fit its recipe"):
        OnnxNetwork(foreign.SerializeToString(), "x.onnx")


def test_a_network_of_another_recipe_is_named(make, model_params, tmp_path):
    model, metadata = make()
    wrong = model_params(filters=(4, 6))
    with pytest.raises(InputError, match=r"its weights do not fit the network of its metadata; run `dvc repro train`"):
        TensorFlowNetwork(model, wrong)
    onnx_file.save(model, tmp_path / "m.onnx", metadata)
    with pytest.raises(InputError, match=r"m\.onnx: its weights do not fit the network of its recipe"):
        onnx_file.load((tmp_path / "m.onnx").read_bytes(), "m.onnx", metadata.targets, wrong)
