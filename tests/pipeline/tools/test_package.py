"""The package for the BioImage Model Zoo: what is in it, that our engines open it, and that the Zoo's own tool does."""

import hashlib
import io
import json
import re
import zipfile

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from nuclei_unet.errors import InputError
from nuclei_unet.network import keras_file, unet
from nuclei_unet.prediction import models
from nuclei_unet.settings import NormalizeSettings
from pipeline import layout
from pipeline.dataset import processed
from pipeline.report.pictures import Example
from pipeline.tools import package, release, zoo
from tests import ROOT
from tests.pipeline.examples import write_project
from tests.metadata import metadata_of

COMMIT = "c" * 40
TARGETS = ("foreground", "border", "distance")
# Other normalizations; the first is the committed one.
LOOKS = ({}, {"channels": 3}, {"percentiles": None, "nucleus_intensity": None}, {"image_size": (64, 64)})
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
def project(tmp_path, monkeypatch, settings):
    """Return a function that makes a small project with a tiny model the current folder."""

    def make(targets=TARGETS, **look):
        ids = write_project(tmp_path)
        rng = np.random.default_rng(1)
        rows = [(f"{n}{'a' * 63}", "train", "k", 0, 40, 40, 9) for n in range(2)]
        for image_id, *_ in rows:
            labels = np.kron(rng.integers(0, 9, (5, 5)), np.ones((8, 8), int)).astype(np.uint16)
            processed.write_sample(tmp_path / "data/processed", image_id, (labels * 20).astype(np.uint8), labels)
        manifest = pd.DataFrame(rows, columns=processed.MANIFEST_COLUMNS)
        manifest.to_csv(tmp_path / "data/processed/manifest.csv", index=False)
        for name in ("LICENSE", "pyproject.toml"):
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())

        network = settings.train.model.model_copy(update={"filters": (3, 5), "dropout": (0.0, 0.1)})
        metadata = metadata_of(settings, network, targets, settings.evaluate)
        normalize = NormalizeSettings.model_validate(metadata.normalize.model_dump() | look)
        keras.utils.set_random_seed(1)
        model = unet.build(normalize.channels, targets, network)
        for weight in model.weights:
            weight.assign(weight + rng.uniform(0.01, 0.05, weight.shape))
        (tmp_path / "models").mkdir()
        keras_file.save(model, tmp_path / "models/model.keras", metadata.model_copy(update={"normalize": normalize}))
        monkeypatch.setattr(release, "commit", lambda: COMMIT)
        monkeypatch.chdir(tmp_path)
        return ids

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


def test_what_is_in_it(project, tmp_path, capsys):
    project()
    package.main()
    assert "nuclei-unet.bioimageio.zip: 2.1 MB" in capsys.readouterr().out
    files, fields = opened()
    # Every file is described, with its digest, but the description itself.
    assert sorted([*(name for name, _ in digests(fields)), "rdf.yaml"]) == sorted(files)
    assert all(hashlib.sha256(files[name]).hexdigest() == digest for name, digest in digests(fields))
    assert {"nuclei-unet.onnx", "nuclei-unet.keras", "LICENSE", "README.md", "cover3.png"} < set(files)
    assert fields["format_version"].startswith("0.5.") and fields["license"] == "MIT"
    assert fields["training_data"]["license"] == "CC0-1.0"
    assert {entry.get("doi") for entry in fields["cite"]} > {
        "10.1007/978-3-319-24574-4_28",
        "10.1038/s41592-019-0612-7",
    }
    metadata = keras_file.read_metadata(layout.MODEL).model_copy(update={"commit": COMMIT})
    assert fields["config"]["nuclei_unet"]["recipe"] == json.loads(metadata.model_dump_json())
    (table,) = fields["config"]["bioimageio"]["evaluations"]
    assert table["metrics"] == ["dsb_score", "iou"] and table["results"] == [[0.4321, 0.4, 0.4, 0.4], [0.8] * 4]
    assert all(str(tmp_path).encode() not in data for data in files.values())
    for name in fields["covers"]:
        height, width, _ = cv2.imdecode(np.frombuffer(files[name["source"]], np.uint8), cv2.IMREAD_COLOR).shape
        assert width == 2 * height


def test_twice_gives_the_same_bytes(project):
    project()
    written = []
    for _ in range(2):
        package.main()
        written.append(layout.PACKAGE.read_bytes())
    assert written[0] == written[1]
    with zipfile.ZipFile(layout.PACKAGE) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("targets", [TARGETS, TARGETS[:1]], ids=len)
def test_both_engines_open_it_and_give_the_same_maps(targets, project):
    project(targets)
    package.main()
    images = np.random.default_rng(2).uniform(0, 255, (1, 32, 48, 1)).astype(np.float32)
    wanted = models.load(layout.MODEL, precision="float32").network(images)
    for engine in ("onnx", "tensorflow"):
        model = models.load(layout.PACKAGE, engine=engine, precision="float32")
        found = model.network(images)
        assert list(found) == list(targets)
        for target in targets:
            np.testing.assert_allclose(found[target], wanted[target], atol=1e-4)
        assert model.metadata.commit == COMMIT and model.metadata.scores["test"]["instance"]["dsb_score"] == 0.4321
    metadata, _, _ = models.describe(layout.PACKAGE)
    assert metadata.diameters is not None and metadata.source == hashlib.sha256(layout.MODEL.read_bytes()).hexdigest()


def test_plain_keras_gives_the_maps_as_channels(project, tmp_path):
    project()
    package.main()
    files, _ = opened()
    (tmp_path / "m.keras").write_bytes(files["nuclei-unet.keras"])
    model = keras.saving.load_model(tmp_path / "m.keras", compile=False)
    assert model.compute_dtype == "float32"
    images = np.random.default_rng(2).uniform(0, 255, (2, 32, 48, 1)).astype(np.float32)
    wanted = models.load(layout.PACKAGE, engine="onnx").network(images)
    np.testing.assert_allclose(model.predict(images, verbose=0), np.concatenate([*wanted.values()], 3), atol=1e-4)
    image, maps = (np.load(io.BytesIO(files[f"test_{name}.npy"])) for name in ("image", "maps"))
    assert image.shape == (1, *package.TEST_SIZE, 1) and maps.shape == (1, *package.TEST_SIZE, 3)


@pytest.mark.parametrize(("look", "engine"), [*((look, "onnx") for look in LOOKS), (LOOKS[0], "keras_v3")], ids=str)
def test_the_zoos_tool_passes_it(look, engine, project, guest):
    project(**look)
    package.main()
    # TensorFlow is ours.
    said = json.loads(guest(ZOO, layout.PACKAGE.resolve(), engine, ours=engine == "keras_v3").splitlines()[-1])
    assert said["status"] == "passed" and not said["errors"]
    assert said["format"] == f"model {zoo.FORMAT}"
    assert f"Reproduce test outputs from test inputs ({engine})" in said["tests"]
    assert any(f"Run {engine} inference for inputs with batch_size: 2" in name for name in said["tests"])
    warnings = [text for text in said["warnings"] if not text.startswith("('training_data'")]
    assert all("sample_tensor" in text or "all elements agree" in text for text in warnings), warnings


def test_the_zoos_tool_would_notice_other_weights(project, guest):
    project()
    package.main()
    files, fields = opened()
    maps = np.load(io.BytesIO(files["test_maps.npy"]))
    buffer = io.BytesIO()
    np.save(buffer, np.roll(maps, 1, axis=3))
    files["test_maps.npy"] = buffer.getvalue()
    fields["outputs"][0]["test_tensor"]["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    stream = io.StringIO()
    YAML(typ="safe").dump(fields, stream)
    files["rdf.yaml"] = stream.getvalue().encode()
    with zipfile.ZipFile(layout.PACKAGE, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    assert json.loads(guest(ZOO, layout.PACKAGE.resolve(), "onnx").splitlines()[-1])["status"] != "passed"


def readme(**audit):
    settings = json.loads(layout.AUDIT.read_text()) | audit
    metadata = models.describe(layout.PACKAGE)[0]
    return zoo.readme(metadata, settings, pd.read_csv(layout.BY_TYPE))


def test_the_readme_has_scores_recipe_and_limits(project):
    project()
    package.main()
    files, fields = opened()
    text = files["README.md"].decode()
    assert text == readme() and "## Validation" in text and "## Limits" in text
    assert "| DSB score | 0.432 | 0.211 | 0.432 | 0.211 |" in text and "| Pixel Dice | 0.900 |  | 0.900 |  |" in text
    assert "| purple-on-white | 2 | 0.800 | 0.400 | 0.200 |" in text
    assert "Depth = distance - 0.5 x border" in text and "0.5 and 99.8 percentiles" in text
    assert f"--model {layout.PACKAGE}" in text and COMMIT in text
    assert re.findall(r"!\[.*\]\((.*)\)", text) == [fields["covers"][0]["source"]]
    assert "drawn" not in text
    # Drawn images are no evidence, and no data set of others.
    synthetic = readme(source="synthetic")
    assert "**This copy was trained on synthetic images." in synthetic and "BBBC038v1, public" not in synthetic


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_the_readme_names_the_steps_that_no_field_says(look, project):
    project(**look)
    package.main()
    text, fields = readme(), opened()[1]
    (tensor,) = fields["inputs"]
    steps = [step["id"] for step in tensor["preprocessing"]]
    assert ("scale_range" in steps) == ("| rdf.yaml |" in text) == (look.get("percentiles", 1) is not None)
    assert ("Otsu's threshold) is at" in text) == (look.get("nucleus_intensity", 1) is not None)
    assert ("64 x 64 pixels" in text) == ("image_size" in look)
    assert ("make the image RGB" in text) == (look.get("channels") == 3)
    assert "invert the image" in text


def test_one_map_needs_no_watershed(project):
    project(TARGETS[:1])
    package.main()
    assert "Each connected part of the foreground map above 0.5 is a nucleus." in readme()
    assert "watershed" not in readme()


def test_a_cover_stays_below_the_zoos_limit(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.kron(rng.integers(0, 99, (64, 64)), np.ones((4, 4), int)).astype(np.uint16)
    noise = Example(rng.integers(0, 255, (256, 256, 3), np.uint8), labels, labels, ("noise",))
    package.write_cover(tmp_path / "cover.png", noise)
    assert (tmp_path / "cover.png").stat().st_size < 500_000


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("models/model.keras", "stage evaluate writes it, run `dvc repro`"),
        ("reports/scores.json", "stage evaluate writes it, run `dvc repro`"),
        ("reports/by_type.csv", "stage evaluate writes it, run `dvc repro`"),
        ("data/raw/stage1_test.zip", "stage download writes it, run `dvc repro`"),
        ("data/processed/manifest.csv", "run `dvc repro preprocess` first"),
        (f"data/predictions/0{'f' * 63}.png", "stage evaluate writes it, run `dvc repro`"),
        (f"data/processed/images/0{'a' * 63}.png", "run `dvc repro --force preprocess`"),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_writes_it(name, command, project):
    project()
    layout.PACKAGE.write_bytes(b"the last one")
    layout.project().joinpath(name).unlink()
    with pytest.raises(InputError, match=f"{name}: .*{command}"):
        package.main()
    assert layout.PACKAGE.read_bytes() == b"the last one"
    assert not list(layout.project().glob(".partial*"))
