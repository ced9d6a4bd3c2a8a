"""Compare the results in this folder with those of another branch or commit, on one page.

    make compare REV=main, or python -m pipeline.tools.compare main; REV may be the name of a DVC experiment

Reads params.yaml, dvc.lock and reports/ here and as REV has them in git, and the predictions of both (those of REV from
DVC's cache). Writes reports/compare.html, which needs no other file and no network: parameters that differ, scores with
a confidence interval of their difference, curves, and the images that got better and worse most.
"""

import argparse
import base64
import contextlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import SCM, SCMError, resolve_rev
from ruamel.yaml import YAML

from nuclei_unet import metrics
from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from pipeline import params, stage, visualize
from pipeline.dataset import processed as dataset
from pipeline.git import git
from pipeline.report import charts as figures
from pipeline.report.page import page
from pipeline.report.pictures import prediction_rows
from pipeline.report.results import read_example
from pipeline.report.scores import SCORES
from pipeline.report.style import write_figure
from pipeline.visualize import PREDICTIONS, REPORTS, TEST_IMAGES

PAGE = REPORTS / "compare.html"
TEMPLATE = visualize.TEMPLATE.with_name("compare.html.jinja")
# Scores of single images, so that both sides can be paired; of scores.json, AP50 is pooled and not the mean of these.
PAIRED = {"dsb_score": "DSB score", "ap50": "AP at IoU 0.50, image by image", "iou": "Pixel IoU"}
SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Side:
    """The results of one side."""

    parameters: dict[str, object]
    metrics: dict
    history: pd.DataFrame
    precision: pd.DataFrame
    images: pd.DataFrame  # indexed by split and image_id


def main() -> None:
    """Write reports/compare.html."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", nargs="?", default="main", help="branch, commit or experiment (default: main)")
    revision = parser.parse_args().revision
    commit = commit_of(revision)
    settings = params.load()
    before, after = (
        read_side(lambda name: file_of(commit, name)),
        read_side(lambda n: Path(n).read_text()),
    )
    differences = paired_differences(before.images, after.images)
    if not differences:
        raise InputError(f"{revision}: has no image in common with this folder; compare runs of one download.source")
    changed = most_changed(before.images, after.images, settings.visualize.examples)
    pictures = {"curves": (figures.compared_curves, {revision: _curves(before), "here": _curves(after)})}
    for name, rows in changed.items():
        if len(rows):
            examples = [read_example(row, TEST_IMAGES, dataset.FOLDER, PREDICTIONS) for row in rows.itertuples()]
            others = [prediction_of(commit, image_id) for image_id in rows.image_id]
            pictures[name] = (prediction_rows, examples, others, (revision, "here"))
    text = page(
        TEMPLATE,
        revision=revision,
        commit=commit,
        headline=headline(revision, differences),
        parameters=changed_parameters(before.parameters, after.parameters),
        scores=score_rows(before.metrics, after.metrics),
        differences=differences,
        pictures={name: png(settings.visualize.dpi, *drawing) for name, drawing in pictures.items()},
    )
    with fresh_file(PAGE) as path:
        path.write_text(text, encoding="utf-8")
    print(f"{headline(revision, differences)} Page: {PAGE}")


def commit_of(revision: str) -> str:
    """Return the commit of a branch, a tag, a commit or a DVC experiment. Raises InputError that names it."""
    try:
        with contextlib.closing(SCM(".")) as scm:
            return resolve_rev(scm, revision)[:10]
    except SCMError as error:
        raise InputError(f"{revision}: no branch, commit or experiment of this repository ({error})") from None


def file_of(commit: str, name: str) -> str:
    """Return the text of a file as a commit has it. Raises InputError that names it."""
    try:
        return git("show", f"{commit}:{name}")
    except InputError:
        raise InputError(f"{commit}: has no {name}; take a commit of this layout that has results") from None


def read_side(read) -> Side:
    """Read the results of one side; `read(name)` returns the text of a file."""
    images = pd.read_csv(io.StringIO(read("reports/per_image.csv")), dtype={"image_id": str})
    return Side(
        parameters=params.flatten_mapping(YAML(typ="safe", pure=True).load(read("params.yaml"))),
        metrics=json.loads(read("reports/scores.json")),
        history=pd.read_csv(io.StringIO(read("reports/history.csv"))),
        precision=pd.read_csv(io.StringIO(read("reports/ap_by_threshold.csv"))),
        images=images.set_index(["split", "image_id"], drop=False),
    )


def changed_parameters(before: Mapping[str, object], after: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """Return (key, value before, value after) of parameters that differ; – where one side has no such key."""
    old, new = ({key: json.dumps(value) for key, value in side.items()} for side in (before, after))
    rows = [(key, old.get(key, "–"), new.get(key, "–")) for key in old | new]
    return [row for row in rows if row[1] != row[2]]


def score_rows(before: Mapping, after: Mapping) -> list[tuple[str, list[float]]]:
    """Return (name, [before, after, difference on test, the same on validation]) of each score."""
    rows = []
    for score in SCORES:
        values = []
        for split in SPLITS:
            old, new = (side[split][score.group].get(score.key, np.nan) for side in (before, after))
            values += [old, new, new - old]
        rows.append((score.name, values))
    return rows


def paired_differences(before: pd.DataFrame, after: pd.DataFrame) -> list[dict]:
    """Return for each split and paired score: images that both have, mean difference, its 95% interval (bootstrap)."""
    rows = []
    shared = before.index.intersection(after.index)
    for split in SPLITS:
        index = shared[shared.get_level_values("split") == split]
        for column, name in PAIRED.items():
            change = (after.loc[index, column] - before.loc[index, column]).to_numpy()
            if not len(change):
                continue
            low, high = metrics.bootstrap_interval(change)
            rows.append(
                {
                    "split": split,
                    "name": name,
                    "images": len(change),
                    "mean": float(change.mean()),
                    "low": low,
                    "high": high,
                    "better": int((change > 0).sum()),
                    "worse": int((change < 0).sum()),
                    "verdict": verdict(low, high),
                }
            )
    return rows


def verdict(low: float, high: float) -> str:
    """Say what an interval of a difference means."""
    if low == high == 0:
        return "the same"
    return "better" if low > 0 else "worse" if high < 0 else "may be chance"


def most_changed(before: pd.DataFrame, after: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return the rows of `after` of the test images whose DSB score rose most, and of those where it fell most."""
    shared = before.index.intersection(after.index)
    shared = shared[shared.get_level_values("split") == "test"]
    change = (after.loc[shared, "dsb_score"] - before.loc[shared, "dsb_score"]).sort_values(kind="stable")
    return {
        "better": after.loc[change[change > 0].index[::-1][:count]],
        "worse": after.loc[change[change < 0].index[:count]],
    }


def headline(revision: str, differences: list[dict]) -> str:
    """Return the difference of the DSB score on the test images in one sentence."""
    row = next(row for row in differences if row["name"] == "DSB score")
    return (
        f"Against {revision} the DSB score of {row['images']} {row['split']} images changes by {row['mean']:+.3f} "
        f"(95% interval {row['low']:+.3f} to {row['high']:+.3f}): {row['verdict']}."
    )


def prediction_of(commit: str, image_id: str) -> np.ndarray:
    """Return the label image that a commit's model predicted, uint16 (H, W), from DVC's cache or remote."""
    name = f"{PREDICTIONS}/{image_id}.png"
    try:
        data = DVCFileSystem(".", rev=commit).read_bytes(name)
    except (DvcException, OSError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"{name} of {commit}: not in DVC's cache ({reason}); run `dvc fetch --all-commits`") from None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def png(dpi: int, draw, *arguments) -> str:
    """Return a figure as base64 of its PNG."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "figure.png")
        write_figure(path, draw, *arguments, dpi)
        return base64.b64encode(path.read_bytes()).decode()


def _curves(side: Side) -> tuple[pd.DataFrame, pd.DataFrame]:
    return side.history, side.precision


if __name__ == "__main__":
    stage.run(main)
