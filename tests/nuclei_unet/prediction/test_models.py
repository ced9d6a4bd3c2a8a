"""Models of all sorts: the pretrained one, files, packages, addresses; and what `info` says of them."""

import json
import zipfile

import numpy as np
import pytest

from nuclei_unet.commands.main import main
from nuclei_unet.errors import InputError
from nuclei_unet.files import file_digest
from nuclei_unet.network.metadata import Adaptation
from nuclei_unet.prediction import models


def test_what_ships_is_evaluated_and_described():
    metadata, name, digest = models.describe(None)
    assert (name, digest) == ("pretrained", file_digest(models.PRETRAINED))
    assert metadata.predict and metadata.diameter == 24 and metadata.licence.startswith("MIT")
    assert metadata.scores["test"]["instance"]["dsb_score"] > 0.4
    assert models.PRETRAINED.stat().st_size < 12e6


def test_a_package_with_the_onnx_file(tmp_path):
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", "type: model")
        archive.write(models.PRETRAINED, "weights.onnx")
    opened, shipped = models.load(path), models.load()
    assert opened.metadata == shipped.metadata
    image = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 1)).astype(np.float32)
    for target, values in opened.network(image).items():
        np.testing.assert_array_equal(values, shipped.network(image)[target])
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cut\.zip"):
        models.load(tmp_path / "cut.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.onnx", b"")
    with pytest.raises(InputError, match=r"package\.zip: not a package of nuclei-unet: it holds 2 ONNX files"):
        models.load(path)


def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"PK")
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    cases = [
        (tmp_path / "x.onnx", "x.onnx: no such model"),
        (tmp_path, "a folder, not a model"),
        ("gs://bucket/model", "gs://bucket/model: nothing that is installed knows"),
        (tmp_path / "x.keras", "a Keras model"),
        (tmp_path / "damaged.onnx", "damaged.onnx: not an ONNX"),
    ]
    for model, reason in cases:
        with pytest.raises(InputError, match=reason):
            models.load(model)


def info(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["info", *arguments])
    assert not stopped.value.code


def test_info(capsys, monkeypatch):
    metadata, _, digest = models.describe(None)
    score = f"{metadata.scores['test']['instance']['dsb_score']:.3f}"
    info(str(models.PRETRAINED))
    said = capsys.readouterr().out
    for fact in (digest, metadata.data, metadata.licence, score, "augmentations", "instance/dsb_score"):
        assert fact in said
    assert "adapted" not in said
    info("--json")
    assert json.loads(capsys.readouterr().out)["predict"] == metadata.predict.model_dump(mode="json")

    adapted = Adaptation(images=5, nuclei=1234, data="a" * 64, steps=0, before=0.5, after=0.6, cross_validated=True)
    described = metadata.but(adapted=adapted, parent=digest), "my-lab.onnx", "b" * 64
    monkeypatch.setattr(models, "describe", lambda model: described)
    info("my-lab.onnx")
    said = capsys.readouterr().out
    for fact in (f"the model with SHA-256 {digest}", "5 images with 1,234 nuclei", "+0.100", "not adapted to"):
        assert fact in said
