"""Read the results that the stages wrote."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from nuclei_unet.errors import InputError
from nuclei_unet.images import to_rgb
from pipeline import layout
from pipeline.dataset import archives, processed
from pipeline.report.pictures import Example

# Which stage writes each table of the reports.
TABLES = {layout.HISTORY: "train"} | dict.fromkeys(
    (layout.PER_IMAGE, layout.BY_TYPE, layout.AP_BY_THRESHOLD), "evaluate"
)


@dataclass(frozen=True)
class Results:
    """What the other stages reported."""

    summary: dict
    audit: dict
    history: pd.DataFrame
    per_image: pd.DataFrame
    by_type: pd.DataFrame
    ap_by_threshold: pd.DataFrame


def read_results() -> Results:
    """Read the reports of the other stages. Raises InputError that names a missing file and its stage."""
    tables = {path.stem: read_table(path, writer) for path, writer in TABLES.items()}
    if "test" not in set(tables["per_image"].split):
        raise InputError(f"{layout.PER_IMAGE}: has no test image; run `dvc repro --force evaluate`")
    return Results(read_json(layout.SCORES_FILE, "evaluate"), read_json(layout.AUDIT, "preprocess"), **tables)


def read_table(path: Path, writer: str) -> pd.DataFrame:
    """Read a CSV that stage `writer` writes. Raises InputError if it is missing or not a table."""
    try:
        return pd.read_csv(existing(path, writer), dtype={"image_id": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV table ({error}); run `dvc repro --force {writer}`") from None


def read_json(path: Path, writer: str) -> dict:
    """Read a JSON file that stage `writer` writes. Raises InputError if it is missing or not JSON."""
    try:
        return json.loads(existing(path, writer).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); run `dvc repro --force {writer}`") from None


def existing(path: Path, writer: str) -> Path:
    """Return `path`, or raise InputError that names the stage that writes it."""
    if not path.exists():
        raise InputError(f"{path}: no such file; stage {writer} writes it, run `dvc repro`")
    return path


def read_example(row: NamedTuple) -> Example:
    """Read a test image to show: its native pixels, truth and prediction. `row` is a row of per_image.csv."""
    with archives.open_archive(existing(layout.TEST_ARCHIVE, "download")) as archive:
        image = archives.read_image(archive, archives.image_member(row.image_id))
    name = f"{row.image_id}.png"
    truth = processed.read_labels(existing(layout.PROCESSED / "labels" / name, "preprocess"))
    predicted = processed.read_labels(existing(layout.PREDICTIONS / name, "evaluate"))
    if not image.shape[:2] == truth.shape == predicted.shape:
        sizes = f"{image.shape[:2]}, {truth.shape} and {predicted.shape}"
        raise InputError(f"{row.image_id}: image, truth and prediction differ in size: {sizes}; run `dvc repro`")
    caption = (
        row.image_id[:8],
        row.image_type,
        f"DSB score {row.dsb_score:.2f}",
        f"pixel IoU {row.iou:.2f}",
        f"nuclei: {row.nuclei} true, {row.predicted_nuclei} predicted",
    )
    return Example(to_rgb(image), truth, predicted, caption)
