"""How runs are named, described and shown."""

import hashlib
import json
import os
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from pipeline.git import _git
from pipeline.params import Params, first_of, flatten, flatten_mapping
from pipeline.tracking.store import _project

SPLITS = ("validation", "test")


SERVED = "nuclei"  # the model as it is served, beside the one that Keras loads


# Columns of the page of all runs, and their widths in px. MLflow keeps views that people share as tags like this one.
COLUMNS = {
    "attributes.`Run Name`": 380,
    "runDateAndNestInfo": 150,
    "metrics.`validation/instance/dsb_score`": 190,
    "metrics.`test/instance/dsb_score`": 155,
    "metrics.`validation/instance/ap50`": 165,
    "metrics.`test/instance/ap50`": 130,
    "metrics.`validation/pixel/iou`": 140,
    "metrics.`test/pixel/iou`": 110,
    "metrics.`train_seconds`": 115,
    "metrics.`crops_per_second`": 135,
}


SECTIONS = ("download", "preprocess", "train", "evaluate")  # those that shape a run's numbers


def _run_name(settings: Params) -> str:
    """Say what tells the run from others: DVC's experiment, parameters that git's HEAD has otherwise; or the data."""
    try:
        committed = flatten_mapping(YAML(typ="safe", pure=True).load(_git("show", "HEAD:params.yaml")) or {})
    except (YAMLError, AttributeError):
        committed = {}
    values = {k: v for k, v in flatten(settings).items() if k.split(".")[0] in SECTIONS and k in committed}
    changed = {k: v for k, v in values.items() if v != _tuples(committed[k])}
    name = [os.environ.get("DVC_EXP_NAME"), *first_of(changed, 3)]
    return " ".join(filter(None, name)) or settings.download.source


def _tuples(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _stage_tags() -> dict[str, str]:
    """Return a digest of each stage's entry in dvc.lock, as far as the stages before this one have ended."""
    try:
        stages = YAML(typ="safe", pure=True).load(Path("dvc.lock").read_text())["stages"]
    except (OSError, YAMLError, TypeError, KeyError):
        return {}
    return {
        f"dvc.{name}": hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:12]
        for name, entry in stages.items()
    }


def _description(settings: Params, metrics: dict[str, float]) -> str:
    """Return the run's description in Markdown: its scores."""
    rows = [
        f"| {name} | " + " | ".join(f"{metrics.get(f'{split}/{key}', float('nan')):.3f}" for split in SPLITS) + " |"
        for name, key in (
            ("DSB score", "instance/dsb_score"),
            ("AP at IoU 0.50", "instance/ap50"),
            ("AP at IoU 0.75", "instance/ap75"),
            ("pixel IoU", "pixel/iou"),
        )
    ]
    table = "\n".join(["| | validation | test |", "|---|---|---|", *rows])
    return f"{_run_name(settings)}\n\n{table}\n\nArtifacts: `report.html`, `figures/`, `per_image.csv`, the model."


def _code_tags() -> dict[str, str]:
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    # What stages write themselves says nothing about the code.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports", ":!dvc.lock")
    dirty = str(bool(changed)).lower()
    return {
        "git_commit": commit,
        # Of the project: the copy in which an experiment works is on none.
        "git_branch": _git("-C", str(_project()), "branch", "--show-current") or "none",
        "git_dirty": dirty,
        # Of MLflow's own, for its columns.
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": "dvc repro",
    }


def _view() -> str:
    """Return the page of all runs with the columns that matter, as MLflow keeps a view that somebody shares."""
    return json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [name for name in COLUMNS if name.startswith("metrics")],
            "columnOrder": list(COLUMNS),
            "columnWidths": COLUMNS,
        }
    )


def _params_digest(settings: Params) -> str:
    values = {key: value for key, value in flatten(settings).items() if key.split(".")[0] in SECTIONS}
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()
