"""Names, descriptions and tags of runs, and what their metrics are called."""

from pathlib import Path

import pytest

from nuclei_unet.evaluation.scores import SCORES
from pipeline import git, params
from pipeline.tracking import names
from tests import PARAMS

CHANGED = {"train.seed": 3, "train.model.filters": [8, 16, 32], "train.epochs": 2, "evaluate.augmentations": [[1, 0]]}


@pytest.fixture
def changed(project, monkeypatch):
    """Return parameters of which four differ from those committed."""
    committed = PARAMS.read_text()
    monkeypatch.setattr(git, "ask", lambda *arguments: committed if arguments[0] == "show" else "a commit")
    Path("params.yaml").write_text(params.override(committed, CHANGED))
    return params.load()


def test_a_run_is_named_after_what_differs_from_the_commit(settings, changed, monkeypatch):
    assert names.run_name(settings) == "bbbc038-fixed"
    assert names.run_name(changed) == "train.seed=3 and 3 more"
    # What has a name keeps it.
    monkeypatch.setenv("DVC_EXP_NAME", "brave-name")
    assert names.run_name(changed) == "brave-name"
    monkeypatch.setenv("MLFLOW_RUN_NAME", "demo")
    assert names.run_name(changed) == "demo"
    monkeypatch.setenv("MLFLOW_RUN_NAME", "demo" * 20)
    assert len(names.run_name(changed)) == 40 and names.run_name(changed).endswith("…")


def test_all_changes_stand_in_the_description_and_in_a_tag(changed):
    description, tag = names.description(changed, {"test/pixel/iou": 0.8}), names.code_tags(changed)["changed"]
    shown = {"train.seed": 3, "train.epochs": 2, "train.model.filters": (8, 16, 32)}
    for name, value in (shown | {"evaluate.augmentations": ((1.0, 0),)}).items():
        assert f"{name}`: {value}" in description and f"{name}={value}" in tag
    assert "| Pixel IoU | nan | 0.800 |" in description


def test_curves_come_before_single_scores():
    # MLflow sorts its sections by what stands before a metric's last slash; those without a slash come last.
    sections = [names.curve(name).rpartition("/")[0] for name in ("loss", "val_foreground_iou", "border_loss")]
    assert sections == ["curves", "curves", "curves/more"]
    assert all(max(sections) < f"{split}/{score.path}" for split in ("test", "validation") for score in SCORES)
    assert names.curve("system/cpu_utilization_percentage") == "system/cpu_utilization_percentage"
