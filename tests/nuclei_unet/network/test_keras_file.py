"""The model file: the same bytes, and no harm from damaged and hostile ones."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from nuclei_unet.network import keras_file, unet
from nuclei_unet.network.metadata import MEMBER
from tests.metadata import metadata_of
from tests.refusals import refused
from tests.zips import rewrite


@pytest.fixture
def metadata(settings, model_params):
    """Return the metadata of the network that `saved` writes."""
    return metadata_of(settings, model_params(stem_stride=2))


@pytest.fixture
def saved(tmp_path, model_params, metadata):
    """Return a function that builds a network, writes it and returns (model, path)."""

    def save(name="model.keras"):
        keras.utils.set_random_seed(3)
        model = unet.build(1, ("foreground", "border"), model_params(stem_stride=2))
        keras_file.save(model, tmp_path / name, metadata)
        return model, tmp_path / name

    return save


def test_the_same_weights_give_the_same_bytes(saved, model_params, tmp_path):
    _, first = saved("first.keras")
    unet.build(1, ("foreground",), model_params())  # moves all counters and addresses
    _, second = saved("second.keras")
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"first.keras", "second.keras"}


@pytest.mark.parametrize("ours", [True, False])
def test_a_saved_model_loads_and_predicts_the_same(ours, saved, metadata):
    model, path = saved()
    loaded, described = keras_file.load(path) if ours else (keras.saving.load_model(path), metadata)
    assert described == metadata
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1)).astype(np.float32)
    before, after = model(image), loaded(image)
    assert set(after) == {"foreground", "border"}
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b"no model"),
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"HDF", b"XXX")),
        lambda path: rewrite(path, "config.json", None),
        lambda path: rewrite(path, "config.json", b"[" * 100_000),
        lambda path: rewrite(path, "config.json", b'{"module": "os", "class_name": "system", "config": {}}'),
        lambda path: rewrite(path, "model.weights.h5", b"no weights"),
        # Metadata that are not whole.
        *(lambda path, data=data: rewrite(path, MEMBER, data) for data in (None, b"{}", b"[" * 100_000)),
        *(lambda path, data=data: rewrite(path, MEMBER, data) for data in (b" " * 2**21, b"\xff\xfe")),
    ],
)
def test_a_damaged_model_file_is_named(damage, saved):
    _, path = saved()
    damage(path)
    assert len(refused(r"model\.keras: ", keras_file.load, path)) < 400


def test_a_model_file_runs_no_code(saved, here):
    _, path = saved()
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    # Keras calls this layer when it loads the file.
    harmful = keras.layers.Lambda(lambda x: (open("harm", "w").close(), x)[1])  # noqa: PTH123
    first = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Rescaling")
    first |= keras.saving.serialize_keras_object(harmful)
    first["config"]["name"] = first["name"]
    rewrite(path, "config.json", json.dumps(config))
    refused(r"model\.keras: .*Lambda", keras_file.load, path)
    assert not Path("harm").exists()
    # The file would do it.
    keras.saving.load_model(path, compile=False, safe_mode=False)
    assert Path("harm").exists()
