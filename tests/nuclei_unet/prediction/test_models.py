"""Models of all kinds: the pretrained one, files, packages, addresses; and which engine computes them."""

import json
import zipfile

import numpy as np
import pytest

from nuclei_unet import Segmenter
from nuclei_unet.commands.main import main
from nuclei_unet.errors import InputError
from nuclei_unet.evaluation import metrics
from nuclei_unet.files import file_digest
from nuclei_unet.network import hardware
from nuclei_unet.prediction import models
from nuclei_unet.prediction.scale import scale_for
from pipeline.dataset import synthetic
from pipeline.tools import release

FACTS = json.loads(models.PRETRAINED.with_suffix(".json").read_text())


def test_what_ships_is_what_it_says():
    assert file_digest(models.PRETRAINED) == FACTS["sha256"]
    metadata, _, digest = models.describe(None)
    assert digest == FACTS["sha256"] and metadata.source == FACTS["source"]
    assert metadata.commit == FACTS["commit"] and len(FACTS["commit"]) == 40 and set(FACTS["commit"]) != {"0"}
    assert metadata.licence == FACTS["licence"] and metadata.licence.startswith("MIT")
    for split, scores in FACTS["scores"].items():
        groups = metadata.scores[split]
        assert all(any(group.get(key) == value for group in groups.values() if isinstance(group, dict))
                   for key, value in scores.items())  # fmt: skip
    assert models.PRETRAINED.stat().st_size < 8e6


def test_what_ships_scores_what_it_says():
    found = release.drawn_scores(Segmenter.load(engine="onnx"))
    # Another kind of processor rounds otherwise.
    assert found == {key: pytest.approx(FACTS["drawn"][key], abs=0.01) for key in found}
    assert {"images", "seed", *found} == set(FACTS["drawn"])


def test_both_engines_find_the_same_nuclei_in_what_ships():
    segmenters = [Segmenter.load(engine=engine, precision="float32") for engine in ("onnx", "tensorflow")]
    for _, image, _ in synthetic.held_out_images(3, 7):
        one, other = (segmenter(image) for segmenter in segmenters)
        assert one.any() and metrics.dsb_score(metrics.instance_counts(one, other)) > 0.99


@pytest.mark.parametrize(("quick", "expected"), [(True, "TensorFlow"), (False, "ONNX Runtime")])
def test_tensorflow_is_taken_where_it_is_faster(quick, expected, monkeypatch):
    monkeypatch.setattr(hardware, "has_amx", lambda: quick)
    monkeypatch.setattr(hardware, "has_nvidia_gpu", lambda: False)
    assert models.load(engine="auto", precision="float32").engine.startswith(expected)


def test_without_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    assert models.load().engine == "ONNX Runtime, float32"
    with pytest.raises(InputError, match=r"needs TensorFlow; pip install 'nuclei-unet\[train\]'"):
        models.load(engine="tensorflow")


def test_a_package_with_the_onnx_file(tmp_path):
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rdf.yaml", "type: model")
        archive.write(models.PRETRAINED, "weights.onnx")
    opened = models.load(path, engine="onnx")
    assert opened.metadata == models.describe(None)[0] == models.describe(path)[0]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.onnx", b"")
    with pytest.raises(InputError, match=r"package\.zip: not a package of nuclei-unet: it holds 2 ONNX files"):
        models.load(path)
    (tmp_path / "cut.zip").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"cut\.zip"):
        models.load(tmp_path / "cut.zip", engine="onnx")


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match="x.onnx: no such model"):
        models.load(tmp_path / "x.onnx")
    with pytest.raises(InputError, match="a folder, not a model"):
        models.load(tmp_path)
    with pytest.raises(InputError, match="gs://bucket/model: nothing installed knows such addresses"):
        models.load("gs://bucket/model")


def test_info(capsys, tmp_path):
    for arguments in (["info"], ["info", str(models.PRETRAINED)]):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert not stopped.value.code
        said = capsys.readouterr().out
        for fact in (FACTS["sha256"], FACTS["commit"], f"{FACTS['scores']['test']['dsb_score']:.3f}", "orientations"):
            assert fact in said
    with pytest.raises(SystemExit):
        main(["info", "--json"])
    assert json.loads(capsys.readouterr().out)["recipe"]["commit"] == FACTS["commit"]


@pytest.mark.parametrize(
    ("pixel_size", "expected"),
    [(None, 1), (0.5, 1), (0.16, 1), (0.05, pytest.approx(18.8 / 160, abs=0.01)), (2.0, pytest.approx(4.7, abs=0.01)),
     (1e-4, 1 / 8), (1e3, 8)],
)  # fmt: skip
def test_pixels_that_make_nuclei_unlike_the_training_ones_are_scaled(pixel_size, expected):
    diameters = models.describe(None)[0].diameters
    assert scale_for(pixel_size, diameters) == expected
    assert scale_for(pixel_size, None) == 1


def test_an_image_seen_at_another_scale_keeps_its_size():
    _, image, _ = next(synthetic.held_out_images(1, 2018))
    segmenter = Segmenter.load(engine="onnx")
    for scale in (0.5, 1.7):
        labels = segmenter(image, scale=scale)
        assert labels.shape == image.shape[:2] and labels.any()
    assert segmenter(np.zeros((1, 1), np.int32), scale=0.1).shape == (1, 1)
