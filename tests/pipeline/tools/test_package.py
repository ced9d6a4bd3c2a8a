"""The package for the BioImage Model Zoo: what is in it, that we open it, and that the Zoo's own tool does."""

import hashlib
import io
import json
import re
import zipfile

import cv2
import keras
import numpy as np
import pytest
from ruamel.yaml import YAML

from nuclei_unet.network import onnx_file, unet
from nuclei_unet.prediction import models
from nuclei_unet.settings import NormalizeSettings
from pipeline import layout
from pipeline.report.pictures import Example
from pipeline.report.results import read_results
from pipeline.tools import package, release, zoo
from tests import ROOT
from tests.metadata import metadata_of
from tests.pipeline.examples import write_project
from tests.refusals import refused

COMMIT = "c" * 40
TARGETS = ("foreground", "border", "distance")
# Other normalizations; the first is the committed one.
NORMALIZATIONS = ({}, {"channels": 3}, {"percentiles": None, "nucleus_intensity": None}, {"image_size": (64, 64)})
ZOO = """
import json
import sys
from bioimageio.core import test_model

summary = test_model(sys.argv[1], weight_format=sys.argv[2])
print(json.dumps({
    "status": summary.status,
    "format": f"{summary.type} {summary.format_version}",
    "tests": [detail.name for detail in summary.details],
    "warnings": [f"{warning.loc} {warning.msg}" for detail in summary.details for warning in detail.warnings],
    "errors": [f"{error.loc} {error.msg}" for detail in summary.details for error in detail.errors],
}))
"""


@pytest.fixture
def project(here, monkeypatch, settings):
    """Return a function that makes a small project with a tiny model the current folder, and packs the model."""

    def make(targets=TARGETS, **normalization):
        write_project(here)
        rng = np.random.default_rng(1)
        for name in ("LICENSE", "pyproject.toml"):
            (here / name).write_bytes((ROOT / name).read_bytes())
        network = settings.train.model.model_copy(update={"filters": (3, 5), "dropout": (0.0, 0.1)})
        metadata = metadata_of(settings, network, targets, settings.evaluate)
        normalize = NormalizeSettings.model_validate(metadata.normalize.model_dump() | normalization)
        keras.utils.set_random_seed(1)
        model = unet.build(normalize.channels, targets, network)
        for weight in model.weights:
            weight.assign(weight + rng.uniform(0.01, 0.05, weight.shape))
        (here / "models").mkdir()
        images = rng.uniform(0, 255, (2, 32, 48, normalize.channels))
        metadata = metadata.but(normalize=normalize, diameter=20.0)
        onnx_file.save(model, here / layout.MODEL, metadata, images)
        monkeypatch.setattr(release, "commit", lambda: COMMIT)
        package.main()

    return make


def opened():
    """Return the package's files by name, and its description."""
    with zipfile.ZipFile(layout.PACKAGE) as archive:
        files = {member.filename: archive.read(member) for member in archive.infolist()}
    return files, YAML(typ="safe").load(files["rdf.yaml"])


def digests(fields):
    """Return (file, digest) wherever a description names a file."""
    if isinstance(fields, dict):
        own = [(fields["source"], fields["sha256"])] if "sha256" in fields else []
        return own + [found for value in fields.values() for found in digests(value)]
    return [found for value in fields for found in digests(value)] if isinstance(fields, list) else []


def readme(**audit):
    results = read_results()
    results.audit.update(audit)
    return zoo.readme(models.describe(layout.PACKAGE)[0], results)


def test_what_is_in_it_and_its_readme_has_scores_recipe_and_limits(project, tmp_path, capsys):
    project()
    assert "nuclei-unet.bioimageio.zip: " in capsys.readouterr().out
    files, fields = opened()
    # Every file is described, with its digest, but the description itself.
    assert sorted([*(name for name, _ in digests(fields)), "rdf.yaml"]) == sorted(files)
    assert all(hashlib.sha256(files[name]).hexdigest() == digest for name, digest in digests(fields))
    assert {"nuclei-unet.onnx", "LICENSE", "README.md", "cover3.png"} < set(files)
    assert fields["format_version"].startswith("0.5.") and fields["license"] == "MIT"
    assert fields["training_data"]["license"] == "CC0-1.0"
    assert all(str(tmp_path).encode() not in data for data in files.values())
    for name in fields["covers"]:
        height, width, _ = cv2.imdecode(np.frombuffer(files[name["source"]], np.uint8), cv2.IMREAD_COLOR).shape
        assert width == 2 * height

    text = files["README.md"].decode()
    assert text == readme() and "## Validation" in text and "## Limits" in text
    assert "| DSB score | 0.432 | 0.211 | 0.432 | 0.211 |" in text and "| Pixel Dice | 0.900 |  | 0.900 |  |" in text
    assert "| purple-on-white | 2 | 0.800 | 0.400 | 0.200 |" in text
    assert "Depth = distance - 0.5 x border" in text and "0.5 and 99.8 percentiles" in text
    assert f"--model {layout.PACKAGE}" in text and COMMIT in text
    assert re.findall(r"!\[.*\]\((.*)\)", text) == [fields["covers"][0]["source"]]
    # Synthetic images are no evidence, and no data set of others.
    synthetic = readme(source="synthetic")
    assert "**This copy was trained on synthetic images." in synthetic and "BBBC038v1, public" not in synthetic


@pytest.mark.parametrize("targets", [TARGETS, TARGETS[:1]], ids=len)
def test_it_is_the_model_that_was_evaluated(targets, project):
    project(targets)
    images = np.random.default_rng(2).uniform(0, 255, (1, 32, 48, 1)).astype(np.float32)
    wanted, opened_here = models.load(layout.MODEL), models.load(layout.PACKAGE)
    maps = opened_here.network(images)
    # The same weights, without the rounding to eight bits.
    floats = onnx_file.load(layout.MODEL.read_bytes(), "model", wanted.metadata)(images)
    assert list(maps) == list(targets)
    for target in targets:
        np.testing.assert_allclose(maps[target], floats[target], atol=1e-3)
    assert opened_here.metadata == wanted.metadata.but(commit=COMMIT)
    files, _ = opened()
    image, maps = (np.load(io.BytesIO(files[f"test_{name}.npy"])) for name in ("image", "maps"))
    assert image.shape == (1, *package.TEST_SIZE, 1) and maps.shape == (1, *package.TEST_SIZE, len(targets))


@pytest.mark.interop
@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
def test_the_zoos_tool_passes_it(normalization, project, guest):
    project(**normalization)
    said = json.loads(guest(ZOO, layout.PACKAGE.resolve(), "onnx").splitlines()[-1])
    assert said["status"] == "passed" and not said["errors"]
    assert said["format"] == f"model {zoo.FORMAT}"
    assert "Reproduce test outputs from test inputs (onnx)" in said["tests"]
    assert any("Run onnx inference for inputs with batch_size: 2" in name for name in said["tests"])
    warnings = [text for text in said["warnings"] if not text.startswith("('training_data'")]
    assert all("sample_tensor" in text or "all elements agree" in text for text in warnings), warnings


@pytest.mark.parametrize("normalization", NORMALIZATIONS, ids=str)
def test_the_readme_names_the_steps_that_no_field_says(normalization, project):
    project(**normalization)
    text, fields = readme(), opened()[1]
    (tensor,) = fields["inputs"]
    steps = [step["id"] for step in tensor["preprocessing"]]
    assert ("scale_range" in steps) == ("| rdf.yaml |" in text) == (normalization.get("percentiles", 1) is not None)
    assert ("Otsu's threshold) is at" in text) == (normalization.get("nucleus_intensity", 1) is not None)
    assert ("64 x 64 pixels" in text) == ("image_size" in normalization)
    assert ("make the image RGB" in text) == (normalization.get("channels") == 3)
    assert "invert the image" in text


def test_a_release_names_its_commit_and_without_a_model_the_last_package_stays(project, tmp_path, monkeypatch):
    project()
    monkeypatch.setattr(models, "PRETRAINED", tmp_path / "pretrained/model.onnx")
    release.main()
    assert models.describe(None)[0] == models.describe(layout.MODEL)[0].but(commit=COMMIT)
    layout.PACKAGE.write_bytes(b"the last one")
    layout.MODEL.unlink()
    refused(r"models/model.onnx: .*stage evaluate writes it, run `dvc repro`", package.main)
    assert layout.PACKAGE.read_bytes() == b"the last one" and not list(layout.project().glob(".partial*"))


def test_a_cover_stays_below_the_zoos_limit(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 99, (64, 64)), np.ones((4, 4), int)).astype(np.uint16)
    noise = Example(rng.integers(0, 255, (256, 256, 3), np.uint8), labels, labels, ("noise",))
    package.write_cover(tmp_path / "cover.png", noise)
    assert (tmp_path / "cover.png").stat().st_size < 500_000
