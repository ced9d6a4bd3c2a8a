"""Model files that mean harm are refused before anything is unpacked, built or computed from them."""

import re
import subprocess
import sys

import cv2
import keras
import numpy as np
import pytest

from benchmarks.fault_injection import hostile_models
from nuclei_unet.errors import InputError
from nuclei_unet.network import keras_file, onnx_file, unet, untrusted
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction import models
from tests import ROOT
from tests.recipes import metadata_of

# Keras notices the others itself, and says so.
DAMAGED = "not a model that can be loaded"


@pytest.fixture(scope="module")
def good(settings, model_params, tmp_path_factory):
    """Return a good model file."""
    keras.utils.set_random_seed(3)
    network = model_params()
    metadata = metadata_of(settings, network, predict=settings.evaluate)
    path = tmp_path_factory.mktemp("good") / "good.keras"
    keras_file.save(unet.build(metadata.normalize.channels, metadata.targets, network), path, metadata)
    return path


@pytest.fixture(scope="module")
def hostile(good, tmp_path_factory):
    """Return the folder of all hostile files, and what has to be said about each."""
    folder = tmp_path_factory.mktemp("hostile") / "models-of-others"
    return folder, hostile_models.write(good, models.PRETRAINED, folder)


def test_a_good_model_is_taken(good):
    untrusted.check(good)


@pytest.mark.parametrize(
    "settings_of",
    [
        {},
        {"stem_stride": 2, "upsampling": "transposed", "normalization": "none"},
        {"encoder": "efficientnet-lite0", "stem_stride": 2, "normalization": "none", "filters": (8, 16)},
    ],
)
def test_networks_of_all_kinds_are_taken(settings_of, settings, model_params, tmp_path):
    network = model_params(**settings_of)
    metadata = metadata_of(settings, network, predict=settings.evaluate)
    keras_file.save(unet.build(metadata.normalize.channels, metadata.targets, network), tmp_path / "m.keras", metadata)
    untrusted.check(tmp_path / "m.keras")


def test_a_keras_model_predicts_in_a_new_process(good, tmp_path):
    # Looking at it starts TensorFlow, whose number of threads cannot change afterwards.
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32), np.uint8))
    command = [sys.executable, "-m", "nuclei_unet", "predict", str(tmp_path / "a.png"), str(tmp_path / "results")]
    done = subprocess.run([*command, "--model", str(good)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_ships_is_taken():
    untrusted.check(models.PRETRAINED)
    assert models.load(engine="onnx")


NAMES = [f"{name}.keras" for name in hostile_models.KERAS] + [f"{name}.onnx" for name in hostile_models.ONNX]


@pytest.mark.parametrize("name", [*NAMES, "bomb.zip"])
def test_a_model_that_means_harm_is_refused(name, hostile, monkeypatch):
    folder, said = hostile
    # Relative names of other files lead somewhere.
    monkeypatch.chdir(folder)
    with pytest.raises(InputError) as caught:
        untrusted.check(folder / name)
        if said[name] == DAMAGED or name.endswith(".onnx"):
            models.load(folder / name, engine="auto" if name.endswith(".keras") else "onnx")
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: ") and len(message) < 500
    if name != "terminal.onnx":  # the last to print a name spells its signs out
        assert re.search(said[name], message) and "\n" not in message


@pytest.mark.parametrize("name", [f"{name}.keras" for name in hostile_models.KERAS])
def test_python_and_the_server_refuse_it_too(name, hostile, monkeypatch):
    folder, _ = hostile
    monkeypatch.chdir(folder)
    for load in (models.load, models.load_weights):
        with pytest.raises(InputError, match=r"\.keras: "):
            load(folder / name)


def test_damage_is_left_to_keras(good, tmp_path):
    cut = tmp_path / "cut.keras"
    cut.write_bytes(good.read_bytes()[:-1000])
    untrusted.check(cut)


def test_an_onnx_file_that_save_wrote_is_taken(good, settings, tmp_path):
    metadata = keras_file.read_metadata(good)
    onnx_file.save(keras_file.load(good), tmp_path / "m.onnx", Metadata(metadata=metadata), half=True)
    assert models.load(tmp_path / "m.onnx", engine="onnx")
