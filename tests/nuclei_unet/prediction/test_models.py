"""Models of all sorts: the pretrained one, files, packages, addresses; and what `info` says of them."""

import json
import re
import zipfile

import numpy as np

from nuclei_unet.files import file_digest
from nuclei_unet.network.metadata import Adaptation
from nuclei_unet.prediction import models
from tests.cli import call, output
from tests.refusals import refused


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
    refused(r"cut\.zip", models.load, tmp_path / "cut.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.onnx", b"")
    refused(r"package\.zip: not a package of nuclei-unet: it holds 2 ONNX files", models.load, path)


def test_what_is_no_model_is_named(tmp_path):
    (tmp_path / "x.keras").write_bytes(b"PK")
    (tmp_path / "damaged.onnx").write_bytes(b"no model")
    for model, reason in (
        (tmp_path / "x.onnx", "x.onnx: no such model"),
        (tmp_path, "a folder, not a model"),
        ("gs://bucket/model", "gs://bucket/model: nothing that is installed knows"),
        (tmp_path / "x.keras", "a Keras model"),
        (tmp_path / "damaged.onnx", "damaged.onnx: not an ONNX"),
    ):
        refused(reason, models.load, model)


def test_what_info_says_of_the_model_that_ships_and_of_an_adapted_one(capsys, monkeypatch):
    metadata, name, digest = models.describe(None)
    assert (name, digest, metadata.diameter) == ("pretrained", file_digest(models.PRETRAINED), 24)
    score = metadata.scores["test"]["instance"]["dsb_score"]
    said = output(capsys, call, "info", models.PRETRAINED)
    for fact in (digest, metadata.data, metadata.licence, f"{score:.3f}", "augmentations", "instance/dsb_score"):
        assert fact in said
    assert "adapted" not in said and score > 0.4
    in_json = json.loads(output(capsys, call, "info", "--json"))
    assert in_json["predict"] == metadata.predict.model_dump(mode="json")

    adapted = Adaptation(images=5, nuclei=1234, data="a" * 64, steps=0, before=0.5, after=0.6, cross_validated=True)
    predict = metadata.predict.model_copy(update={"outline_offset": 0.125})
    described = metadata.but(adapted=adapted, parent=digest, predict=predict), "my-lab.onnx", "b" * 64
    monkeypatch.setattr(models, "describe", lambda model: described)
    said = output(capsys, call, "info", "my-lab.onnx")
    facts = ("5 images with 1,234 nuclei", "0 steps: its settings alone", "+0.100: dsb", "not adapted to")
    assert all(fact in said for fact in facts) and re.search(r"outline_offset +0\.125\n", said)
    assert re.search(f"\nadapted from +the model with SHA-256 {digest}\n", said)
