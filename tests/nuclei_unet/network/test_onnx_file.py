"""A network written to ONNX predicts as Keras does, in eight bits nearly so; and it comes back to go on with."""

import keras
import numpy as np
import onnx
import pytest
from onnx import helper

from nuclei_unet.network import onnx_file, unet
from nuclei_unet.network.metadata import KEY
from nuclei_unet.prediction.engine import OnnxNetwork
from tests.metadata import metadata_of
from tests.refusals import refused

SHAPES = [(1, 16, 16), (1, 32, 48), (2, 64, 16)]
NETWORKS = [
    {},
    {"stem_stride": 1, "upsampling": "nearest", "channels": 3},
    {"normalization": "none", "upsampling": "bilinear"},
    {"upsampling": "transposed", "filters": (2, 3, 4, 5), "dropout": (0.0, 0.0, 0.2, 0.0)},
    {"encoder": "efficientnet-lite0", "channels": 3, "filters": (2, 3, 4), "dropout": (0.0, 0.0, 0.2)},
    {"encoder": "efficientnet-lite0", "filters": (2, 3), "dropout": (0.0, 0.0), "join": "add"},
    {"join": "add", "upsampling": "transposed", "normalization": "none"},
]


@pytest.fixture
def make(model_params, settings):
    """Return a function that builds a network of random weights, moved normalizations included, and its metadata."""

    def build(channels=1, **changes):
        keras.utils.set_random_seed(1)
        params = model_params(**{"stem_stride": 2, "filters": (3, 5), "dropout": (0.1, 0.0)} | changes)
        metadata = metadata_of(settings, params)
        normalize = metadata.normalize.model_copy(update={"channels": channels})
        model = unet.build(channels, metadata.targets, params)
        rng = np.random.default_rng(0)
        for weight in model.weights:
            weight.assign(weight + rng.uniform(0.01, 0.05, weight.shape))
        return model, metadata.but(normalize=normalize, diameter=20.0)

    return build


def images_of(channels, *shape, seed=2):
    return np.random.default_rng(seed).uniform(0, 255, (*shape, channels)).astype(np.float32)


@pytest.mark.parametrize("changes", NETWORKS, ids=str)
def test_both_files_predict_what_keras_does_and_come_back(changes, make, tmp_path):
    model, metadata = make(**changes)
    calibration = list(images_of(model.input_shape[-1], 4, 64, 64, seed=3))
    # Kernels are kept in half precision; maps of random networks are steep.
    for name, images, tolerance in (("float", (), 0.005), ("int8", calibration, 0.1)):
        path = tmp_path / f"{name}.onnx"
        written = onnx_file.save(model, path, metadata, images)
        network = OnnxNetwork(path.read_bytes(), name, threads=2)
        assert network.metadata == written and written.network.normalization == "none"
        assert written == metadata.but(network=written.network) and network.channels == model.input_shape[-1]
        back = onnx_file.load(path.read_bytes(), name, written)
        for shape in SHAPES:
            image = images_of(network.channels, *shape)
            maps, wanted, again = network(image), model(image), back(image)
            assert list(maps) == list(metadata.targets)
            for target, values in maps.items():
                assert values.shape == (*shape, 1) and values.dtype == np.float32
                assert np.abs(wanted[target] - again[target]).mean() < 0.005
                assert np.abs(values - wanted[target]).mean() < tolerance


def test_the_same_model_gives_the_same_bytes(make, tmp_path):
    for name in ("a", "b"):
        onnx_file.save(make()[0], tmp_path / name, make()[1], list(images_of(1, 3, 32, 32)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_metadata_leave_the_network_as_it_is(make, tmp_path):
    model, metadata = make()
    written = onnx_file.save(model, tmp_path / "a", metadata, list(images_of(1, 3, 32, 32)))
    onnx_file.copy(tmp_path / "a", tmp_path / "b", written.but(commit="a" * 40))
    one, other = (OnnxNetwork((tmp_path / name).read_bytes(), name) for name in "ab")
    assert other.metadata == one.metadata.but(commit="a" * 40)
    for target, values in one(images_of(1, 1, 32, 32)).items():
        np.testing.assert_array_equal(values, other(images_of(1, 1, 32, 32))[target])
    onnx_file.copy(tmp_path / "b", tmp_path / "b", written)
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()


def test_threads_do_not_change_results(make, tmp_path):
    model, metadata = make(filters=(8, 16), dropout=(0.0, 0.0))
    onnx_file.save(model, tmp_path / "m.onnx", metadata, list(images_of(1, 3, 64, 64)))
    data = (tmp_path / "m.onnx").read_bytes()
    one, three = (OnnxNetwork(data, "m.onnx", threads=threads)(images_of(1, 1, 256, 208)) for threads in (1, 3))
    for target in one:
        np.testing.assert_array_equal(one[target], three[target])


def test_for_a_gpu_the_rounding_goes(make, tmp_path):
    """Half precision is near the float network; computed here by the CPU, since tests have no GPU."""
    for changes in ({}, {"encoder": "efficientnet-lite0"}):
        model, metadata = make(**changes)
        onnx_file.save(model, tmp_path / "m.onnx", metadata, list(images_of(1, 3, 64, 64)))
        data = onnx_file.in_half_precision((tmp_path / "m.onnx").read_bytes())
        kinds = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
        assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
        image = images_of(1, 1, 64, 64)
        for target, values in OnnxNetwork(data, "m.onnx")(image).items():
            assert np.abs(values - model(image)[target]).mean() < 0.005


def test_what_is_no_model_of_ours_is_named(make, tmp_path):
    model, metadata = make()
    onnx_file.save(model, tmp_path / "m.onnx", metadata)
    data = (tmp_path / "m.onnx").read_bytes()
    for broken in (b"", b"no model", data[: len(data) // 2]):
        refused(r"^x\.onnx: not an ONNX file that can be loaded", OnnxNetwork, broken, "x.onnx")
    foreign = onnx.load_model_from_string(data)
    wide = metadata.network.model_copy(update={"filters": (2048,) * 4, "dropout": (0.0,) * 4})
    for text, said in (
        (None, "another program"),
        ("{}", r"cannot be read \(targets: Field required"),
        (" " * 2**21, "larger than"),
        ("[" * 100_000, "cannot be read"),
        (metadata.but(targets=("foreground",)).dump(), "not the one that it describes"),
        (metadata.but(network=wide).dump(), "far larger network"),
    ):
        del foreign.metadata_props[:]
        if text is not None:
            helper.set_model_props(foreign, {KEY: text})
        assert len(refused(rf"^x\.onnx: .*{said}", OnnxNetwork, foreign.SerializeToString(), "x.onnx")) < 400


def test_weights_that_are_no_numbers_or_do_not_fit_are_noticed(make, model_params, tmp_path):
    model, metadata = make()
    model.layers[-1].set_weights([values * np.nan for values in model.layers[-1].get_weights()])
    onnx_file.save(model, tmp_path / "m.onnx", metadata)
    refused(r"m\.onnx: its maps are not numbers", OnnxNetwork, (tmp_path / "m.onnx").read_bytes(), "m.onnx")
    # So is a network that does not fit its description.
    other = onnx_file.save(model, tmp_path / "m.onnx", metadata).but(network=model_params(filters=(4, 6)))
    refused(r"m\.onnx: its weights do not fit", onnx_file.load, (tmp_path / "m.onnx").read_bytes(), "m.onnx", other)
