"""ONNX files that mean harm are refused in one line that names them."""

import re

import pytest

from benchmarks.fault_injection import hostile_models
from nuclei_unet.errors import InputError
from nuclei_unet.prediction import models


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Return the folder of all hostile files, and what has to be said about each."""
    folder = tmp_path_factory.mktemp("hostile") / "models-of-others"
    return folder, hostile_models.write(models.PRETRAINED, folder)


@pytest.mark.parametrize("name", [f"{name}.onnx" for name in hostile_models.HOSTILE])
def test_a_model_that_means_harm_is_refused(name, hostile, monkeypatch):
    folder, said = hostile
    # Relative names of other files lead somewhere.
    monkeypatch.chdir(folder)
    (folder / "good.onnx").write_bytes(models.PRETRAINED.read_bytes())
    with pytest.raises(InputError) as caught:
        models.load(folder / name)
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: ") and len(message) < 500
    if name != "terminal.onnx":  # the last to print a name spells its signs out
        assert re.search(said[name], message) and "\n" not in message
