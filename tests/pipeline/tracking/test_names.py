"""Names of runs and tags of stages."""

from pathlib import Path

from pipeline import params
from pipeline.tracking import names
from pipeline.tracking.names import _run_name, _stage_tags
from tests import PARAMS


def test_a_run_is_named_after_what_differs_from_the_commit(project, monkeypatch):
    committed = PARAMS.read_text()
    monkeypatch.setattr(names, "_git", lambda *arguments: committed if arguments[0] == "show" else "")
    assert _run_name(project) == "bbbc038-fixed"
    changed = {"train.seed": 3, "train.model.filters": [8, 16, 32, 64], "evaluate.scales": [1], "train.epochs": 2}
    Path("params.yaml").write_text(params.override(committed, changed))
    monkeypatch.setenv("DVC_EXP_NAME", "brave-name")
    name = _run_name(params.load())
    assert name == "brave-name train.seed=3 train.epochs=2 train.model.filters=(8, 16, 32, 64) and 1 more"


def test_without_git_a_run_is_named_after_its_data(project):
    assert _run_name(project) == "bbbc038-fixed"


def test_stages_are_told_apart_by_their_entries_in_the_lock(project):
    assert _stage_tags() == {}
    Path("dvc.lock").write_text("stages:\n  train:\n    cmd: a\n  evaluate:\n    cmd: b\n")
    tags = _stage_tags()
    assert set(tags) == {"dvc.train", "dvc.evaluate"} and len(set(tags.values())) == 2
