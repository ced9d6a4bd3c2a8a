"""What MLflow's pages say about a run: its name, description and tags, and the names of its metrics."""

import hashlib
import json
import os
from collections.abc import Mapping

from ruamel.yaml import YAML, YAMLError

from nuclei_unet.evaluation.scores import main_ones
from pipeline import git, layout
from pipeline.params import Params, first_of, flatten

EXPERIMENT = "nuclei-unet"
SERVED = "nuclei"  # the model as it is served, beside the one that Keras loads
PICTURE = "image - truth - prediction"
PREVIEW = "preview.png"  # examples as the description shows them
NOTE = "mlflow.note.content"  # MLflow's tag for the description
RUN_NAME = "MLFLOW_RUN_NAME"  # the variable that names a run
LONGEST = 40  # characters of a run's name
SECTIONS = ("download", "preprocess", "train", "evaluate")  # those that affect a run's numbers
# MLflow's page of a run's metrics is sorted by the part before the last slash: these charts come first.
FIRST_CURVES = ("loss", "val_loss", "foreground_iou", "val_foreground_iou")


def curve(name: str) -> str:
    """Return the name in MLflow of what is measured each epoch; the names sort the most wanted curves first."""
    if name.startswith("system/"):
        return name  # has a page of its own
    return f"curves/{name}" if name in FIRST_CURVES else f"curves/more/{name}"


def changed(settings: Params) -> dict[str, object]:
    """Return the parameters that differ from git's HEAD, of those that affect a run's numbers."""
    try:
        committed = flatten(YAML(typ="safe", pure=True).load(git.ask("show", f"HEAD:{layout.PARAMS}")) or {})
    except (YAMLError, AttributeError):
        committed = {}
    values = {k: v for k, v in flatten(settings).items() if k.split(".")[0] in SECTIONS and k in committed}
    return {k: v for k, v in values.items() if v != _tuples(committed[k])}


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def run_name(settings: Params) -> str:
    """Return a short name: what the user or DVC calls it, or the first changed parameter, or the data set."""
    given = os.environ.get(RUN_NAME) or os.environ.get("DVC_EXP_NAME")
    values = changed(settings)
    name = given or " ".join(first_of(values, 1)) or settings.download.source
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 1]}…"


def description(settings: Params, metrics: Mapping[str, float]) -> str:
    """Return the run's description in Markdown: its main scores, and what it changes."""
    rows = [
        f"| {score.name} | "
        + " | ".join(f"{metrics.get(f'{split}/{score.path}', float('nan')):.3f}" for split in layout.SCORED_SPLITS)
        + " |"
        for score in main_ones()
    ]
    table = "\n".join([f"| | {' | '.join(layout.SCORED_SPLITS)} |", "|---|---|---|", *rows])
    values = changed(settings)
    what = "\n".join(f"- `{key}`: {value}" for key, value in values.items())
    differs = [f"Changed from the last commit:\n\n{what}"] if values else []
    return "\n\n".join([table, *differs, "Artifacts: `report.html`, `figures/`, `per_image.csv`, the model."])


def code_tags(settings: Params) -> dict[str, str]:
    """Return the commit of the code, and the parameters that were changed since."""
    commit = git.ask("rev-parse", "HEAD")
    if not commit:
        return {}
    # Files that stages write are not counted: they say nothing about the code.
    edited = git.ask("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports", ":!dvc.lock")
    return {
        "changed": ", ".join(f"{key}={value}" for key, value in changed(settings).items()) or "nothing",
        "git_commit": commit,
        # The project's branch: the copy in which an experiment runs has none.
        "git_branch": git.ask("-C", str(layout.project()), "branch", "--show-current") or "none",
        "git_dirty": str(bool(edited)).lower(),
        # MLflow's own tags, for its columns.
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": "dvc repro",
    }


def params_digest(settings: Params) -> str:
    """Return a digest of the parameters that affect a run's numbers: other values make another run."""
    values = {key: value for key, value in flatten(settings).items() if key.split(".")[0] in SECTIONS}
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()


def view() -> str:
    """Return the page of all runs with the columns that matter, in MLflow's format for a shared view."""
    paths = [f"{split}/{score.path}" for score in main_ones() for split in layout.SCORED_SPLITS]
    metrics = [*paths, "train_seconds", curve("crops_per_second")]
    # Widths in px: a name has to be readable.
    widths = {"attributes.`Run Name`": 300, "runDateAndNestInfo": 150}
    widths |= {f"metrics.`{name}`": 45 + 5 * len(name) for name in metrics}
    return json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [name for name in widths if name.startswith("metrics")],
            "columnOrder": list(widths),
            "columnWidths": widths,
        }
    )
