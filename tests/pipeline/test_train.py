"""The train stage: when a stopped training is taken up again, and what a trained model carries."""

import contextlib

import pandas as pd
import pytest

from nuclei_unet.files import tree_digest
from nuclei_unet.training import fit
from pipeline import layout, params, train
from pipeline.dataset import processed
from pipeline.tools.project import copy_project
from pipeline.tracking import client
from tests import ROOT
from tests.nuclei_unet.training.examples import Stopped, sample


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project with a data set of two images; the current folder during the test."""
    folder = tmp_path / "project"
    copy_project(ROOT, folder)
    monkeypatch.chdir(folder)
    # The stage sets the precision of all that follows.
    layout.PARAMS.write_text(params.override(layout.PARAMS.read_text(), {"train.precision": "float32"}))
    layout.PROCESSED.mkdir(parents=True)
    rows = []
    for number, split in enumerate(("train", "validation")):
        one = sample(number)
        processed.write_sample(layout.PROCESSED, one.image_id, one.image, one.labels)
        rows.append((one.image_id, split, one.image_type, number, *one.labels.shape, 4))
    pd.DataFrame(rows, columns=processed.MANIFEST_COLUMNS).to_csv(layout.PROCESSED / processed.MANIFEST, index=False)
    monkeypatch.setattr(client, "training_run", lambda *_: contextlib.nullcontext(client.TrainingLog))
    return folder


@pytest.fixture
def stop(monkeypatch):
    """Return a function that starts the stage, stops its training, and returns where that keeps its state."""

    def stopped(training, validation, settings, channels, log_epoch, state, log_picture):
        state.parent.mkdir(exist_ok=True)
        state.touch()
        stop.state = state
        raise Stopped

    def stop():
        with pytest.raises(Stopped):
            train.main()
        return stop.state

    monkeypatch.setattr(fit, "train", stopped)
    return stop


def comment(path):
    path.write_text(path.read_text() + "# A remark.\n")


def test_a_stopped_training_is_thrown_away_only_if_what_the_stage_depends_on_changed(project, stop):
    first = stop()
    for name in ("pipeline/report/page.py", "nuclei_unet/prediction/tiles.py", "README.md"):
        comment(project / name)
    assert stop() == first and first.exists()
    for name in ("nuclei_unet/training/crops.py", "pipeline/train.py", "data/processed/manifest.csv"):
        before = stop()
        comment(project / name)
        assert stop() != before and not before.exists()


def test_a_recipe_is_that_of_its_parameters_and_data(project, settings):
    metadata = train.metadata_of(settings)
    assert metadata.network == settings.train.model and metadata.targets == settings.train.targets
    assert metadata.normalize.model_dump().items() <= settings.preprocess.model_dump().items()
    assert metadata.predict is None and metadata.commit is None
    assert metadata.data == tree_digest([layout.PROCESSED])
    (image,) = (project / layout.PROCESSED / "images").glob("image0.png")
    image.write_bytes(image.read_bytes() + b"more")
    assert train.metadata_of(settings).data != metadata.data
