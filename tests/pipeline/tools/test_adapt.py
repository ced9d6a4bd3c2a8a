"""`make adapt`: the project's model, its training images as replay, and a run in MLflow."""

import shutil
import sys

import cv2
import pandas as pd
import pytest

from nuclei_unet.formats.label_tiff import write_labels
from nuclei_unet.prediction import models
from pipeline import layout, params
from pipeline.dataset import processed
from pipeline.tools import adapt
from tests import PARAMS
from tests.nuclei_unet.adaptation.adapting import image, random_labels, wide_annotator
from tests.pipeline.tracking.trainings import client_of


@pytest.fixture
def project(here):
    """Return a project with a model and one training image, and three annotated images; now the working directory."""
    (here / "params.yaml").write_text(PARAMS.read_text())
    for name in ("models", "data/processed"):
        (here / name).mkdir(parents=True)
    shutil.copy(models.PRETRAINED, layout.MODEL)
    draw, metadata = wide_annotator()
    processed.write_sample(here / "data/processed", "a", *image(20))
    rows = [("a", "train", "k", 0, 96, 112, 7)]
    pd.DataFrame(rows, columns=processed.MANIFEST_COLUMNS).to_csv("data/processed/manifest.csv", index=False)
    (here / "images").mkdir()
    for number in range(3):
        pixels, _ = image(number)
        cv2.imwrite(f"images/{number}.png", pixels)
        write_labels(here / f"labels/{number}.tif", draw(pixels))
        write_labels(here / f"random/{number}.tif", random_labels(number))
    return metadata


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["adapt", *arguments, "--calibrate-only"])
    adapt.main()


def test_an_adaptation_is_a_run_in_mlflow(project, monkeypatch, tmp_path):
    for labels in ("labels", "random"):
        run(monkeypatch, "images", labels, "--out", f"{labels}.onnx")
    client = client_of("mlflow.db")
    (experiment,) = (e for e in client.search_experiments() if e.name == "nuclei-unet")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    helped, not_helped = runs["adapt labels"], runs["adapt random"]
    made = models.describe(tmp_path / "labels.onnx")[0].adapted
    assert helped.data.metrics["adapt/baseline/dsb_score"] == made.before
    assert helped.data.metrics["adapt/offset_only/dsb_score"] == made.after
    assert helped.data.params["labels"] == "labels" and helped.data.params["model"] == "models/model.onnx"
    assert helped.data.params["evaluate.outline_offset"] and helped.data.params["threads"] == "2"
    assert helped.data.tags["chosen"] == "offset only" and len(helped.data.tags["parent_sha256"]) == 64
    assert [file.path for file in client.list_artifacts(helped.info.run_id)] == ["labels.onnx"]
    assert (helped.info.status, not_helped.data.tags["helped"]) == ("FINISHED", "false")
    assert not client.list_artifacts(not_helped.info.run_id) and not (tmp_path / "random.onnx").exists()


def test_a_dead_mlflow_costs_a_warning(project, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    run(monkeypatch, "images", "labels", "--out", "labels.onnx")
    assert (tmp_path / "labels.onnx").exists() and "warning: MLflow cannot be written to" in capsys.readouterr().err


def test_training_images_are_replayed_only_if_the_model_knows_them_so(project, capsys):
    settings = params.load()
    (sample,) = adapt.replay(project, settings)
    assert sample.image_id == "a" and not capsys.readouterr().err
    otherwise = project.but(normalize=project.normalize.model_copy(update={"channels": 3}))
    assert adapt.replay(otherwise, settings) == ()
    assert "normalizes images otherwise" in capsys.readouterr().err
    (layout.PROCESSED / processed.MANIFEST).unlink()
    assert adapt.replay(project, settings) == () and "data/processed is missing" in capsys.readouterr().err
