"""Compare the results in this folder with those of another branch or commit, on one page.

    make compare REV=main, or python -m pipeline.tools.compare main; REV may be the name of a DVC experiment

Reads params.yaml, dvc.lock and reports/ here and as REV has them in git, and the predictions of both (those of REV from
DVC's cache). Writes reports/compare.html, which needs no other file and no internet: parameters that differ, scores
with a confidence interval of their difference, curves, and the images that improved and worsened most.
"""

import argparse
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from ruamel.yaml import YAML

from nuclei_unet.errors import InputError
from nuclei_unet.evaluation import metrics
from nuclei_unet.evaluation.scores import main_ones
from nuclei_unet.files import fresh_file
from pipeline import layout, params, stage
from pipeline.report import charts, pictures, scores
from pipeline.report.page import page, picture
from pipeline.report.results import read_example
from pipeline.report.style import write_figure
from pipeline.tools.project import commit_of, committed

TEMPLATE = "compare.html.jinja"
SPLITS = tuple(reversed(layout.SCORED_SPLITS))  # the test images first


@dataclass(frozen=True)
class Side:
    """The results of one side."""

    parameters: dict[str, object]
    summary: dict
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
    before, after = read_side(lambda path: committed(commit, path)), read_side(Path.read_text)
    differences = paired_differences(before.images, after.images)
    if not differences:
        raise InputError(f"{revision}: shares no image with this folder; compare runs with the same download.source")
    changed = most_changed(before.images, after.images, settings.visualize.examples)
    curves = {name: (side.history, side.precision) for name, side in ((revision, before), ("here", after))}
    drawings = {"curves": (charts.compared_curves, curves)}
    for name, rows in changed.items():
        if len(rows):
            examples = [read_example(row) for row in rows.itertuples()]
            others = [prediction_of(commit, image_id) for image_id in rows.image_id]
            drawings[name] = (pictures.prediction_rows, examples, others, (revision, "here"))
    text = page(
        TEMPLATE,
        revision=revision,
        commit=commit[:10],
        headline=headline(revision, differences),
        parameters=changed_parameters(before.parameters, after.parameters),
        scores=scores.change_rows(before.summary, after.summary),
        differences=differences,
        pictures={name: png(settings.visualize.dpi, *drawing) for name, drawing in drawings.items()},
    )
    with fresh_file(layout.COMPARISON) as path:
        path.write_text(text, encoding="utf-8")
    print(f"{headline(revision, differences)} Page: {layout.COMPARISON}")


def read_side(read) -> Side:
    """Read the results of one side; `read(path)` returns the text of a file."""
    images = pd.read_csv(io.StringIO(read(layout.PER_IMAGE)), dtype={"image_id": str})
    return Side(
        parameters=params.flatten(YAML(typ="safe", pure=True).load(read(layout.PARAMS))),
        summary=json.loads(read(layout.SCORES_FILE)),
        history=pd.read_csv(io.StringIO(read(layout.HISTORY))),
        precision=pd.read_csv(io.StringIO(read(layout.AP_BY_THRESHOLD))),
        images=images.set_index(["split", "image_id"], drop=False),
    )


def changed_parameters(before: Mapping[str, object], after: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """Return (key, value before, value after) of parameters that differ; – where one side has no such key."""
    old, new = ({key: json.dumps(value) for key, value in side.items()} for side in (before, after))
    rows = [(key, old.get(key, "–"), new.get(key, "–")) for key in old | new]
    return [row for row in rows if row[1] != row[2]]


def paired_differences(before: pd.DataFrame, after: pd.DataFrame) -> list[dict]:
    """Return for each split and main score: images that both have, mean difference, its 95% interval (bootstrap).

    Both sides are a per_image.csv. A score that one side lacks, because it is older than the score, is left out.
    """
    rows = []
    shared = before.index.intersection(after.index)
    for split in SPLITS:
        index = shared[shared.get_level_values("split") == split]
        for score in main_ones():
            if not (len(index) and score.column in before and score.column in after):
                continue
            change = (after.loc[index, score.column] - before.loc[index, score.column]).to_numpy()
            low, high = metrics.bootstrap_interval(change)
            direction = -1 if score.lower_is_better else 1
            rows.append(
                {
                    "split": split,
                    "key": score.key,
                    # A single image has only its own score, not a pooled one.
                    "name": score.name + (", image by image" if score.over == "pooled" else ""),
                    "images": len(change),
                    "mean": float(change.mean()),
                    "low": low,
                    "high": high,
                    "better": int((change * direction > 0).sum()),
                    "worse": int((change * direction < 0).sum()),
                    "verdict": verdict(low, high, direction),
                }
            )
    return rows


def verdict(low: float, high: float, direction: int = 1) -> str:
    """Say what an interval of a difference means; `direction` is -1 if lower is better."""
    if low == high == 0:
        return "the same"
    if low <= 0 <= high:
        return "may be chance"
    return "better" if low * direction > 0 else "worse"


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
    row = next(row for row in differences if row["key"] == "dsb_score")
    images, interval = f"{row['images']} {row['split']} images", f"{row['low']:+.3f} to {row['high']:+.3f}"
    change = f"changes by {row['mean']:+.3f} (95% interval {interval}): {row['verdict']}."
    return f"Against {revision} the DSB score of {images} {change}"


def prediction_of(commit: str, image_id: str) -> np.ndarray:
    """Return the label image that a commit's model predicted, uint16 (H, W), from DVC's cache or remote."""
    name = f"{layout.PREDICTIONS}/{image_id}.png"
    try:
        data = DVCFileSystem(".", rev=commit).read_bytes(name)
    except (DvcException, OSError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(f"{name} of {commit}: not in DVC's cache ({reason}); run `dvc fetch --all-commits`") from None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def png(dpi: int, draw, *arguments) -> str:
    """Return a figure as base64 of its PNG."""
    buffer = io.BytesIO()
    write_figure(buffer, draw, *arguments, dpi)
    return picture(buffer.getvalue())


if __name__ == "__main__":
    stage.run(main)
