"""Scores of the pipeline: of the U-Net beside Otsu's threshold, by split and image type, for tables and reports.

The scores themselves are in the library's catalogue, nuclei_unet/evaluation/scores.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nuclei_unet.evaluation import metrics, scores
from nuclei_unet.evaluation.scores import Counts, ScoreInfo, listed, main_ones
from pipeline import layout

OTSU = "otsu"  # the group with the scores of Otsu's threshold, without any learning
# The score that decides which model is the champion, and that sorts experiments.
DECISIVE = "validation/instance/dsb_score"


@dataclass(frozen=True)
class ImageCounts:
    """The counts of one image, of the U-Net and of Otsu's threshold."""

    image_id: str
    split: str
    image_type: str
    shape: tuple[int, int]
    unet: Counts
    otsu: Counts


def row(item: ImageCounts) -> dict:
    """Return one image's row of per_image.csv."""
    height, width = item.shape
    return {
        "image_id": item.image_id,
        "split": item.split,
        "image_type": item.image_type,
        "height": height,
        "width": width,
        "nuclei": item.unet.instances.n_truth,
        "predicted_nuclei": item.unet.instances.n_predicted,
        **scores.of_image(item.unet),
        **{f"otsu_{score.column}": score.of(item.otsu) for score in _floor_columns()},
    }


def _floor_columns() -> list[ScoreInfo]:
    return [score for score in scores.SCORES if score.floor and score.column and score.over == "mean"]


def summarise(items: Sequence[ImageCounts]) -> dict:
    """Return the scores of one split, {group: {key: value}}, and n_images; the group `otsu` holds Otsu's."""
    floor = scores.values([score for score in scores.SCORES if score.floor], [item.otsu for item in items])
    return {"n_images": len(items), **scores.of_images([item.unet for item in items]), OTSU: floor}


def by_type(images: pd.DataFrame) -> pd.DataFrame:
    """Return the means over images of each split and image_type; `images` is per_image.csv."""
    groups = images.groupby(["split", "image_type"], sort=True)
    table = groups[[column for column, _ in type_columns(together=False)]].mean()
    table.insert(0, "n_images", groups.size())
    # Validation first: choices are made on it.
    return table.reset_index().sort_values(["split", "image_type"], ascending=[False, True], ignore_index=True)


def type_columns(together: bool = True) -> list[tuple[str, str]]:
    """Return (column, heading) of the scores in by_type.csv; Otsu's beside the U-Net's if `together`, else last."""
    order = listed() if together else scores.SCORES
    shown = [score for score in order if score.by_type and score.column]
    floor = {score.key: (f"otsu_{score.column}", f"Otsu {score.short}") for score in _floor_columns() if score.by_type}
    columns = [((score.column, score.short), floor.get(score.key)) for score in shown]
    pairs = [part for pair in columns for part in pair] if together else [own for own, _ in columns] + [*floor.values()]
    return [pair for pair in pairs if pair]


def ap_by_threshold(items: Mapping[str, Sequence[ImageCounts]]) -> pd.DataFrame:
    """Return the pooled average precision at each IoU threshold: one row per threshold, one column per curve."""
    curves = {}
    for split, images in items.items():
        curves[f"{split}_unet"] = metrics.pooled(item.unet.instances for item in images)
        curves[f"{split}_otsu"] = metrics.pooled(item.otsu.instances for item in images)
    return pd.DataFrame(
        {"iou_threshold": threshold}
        | {name: metrics.average_precision(counts, threshold) for name, counts in curves.items()}
        for threshold in metrics.IOU_THRESHOLDS
    )


def main_scores(summary: Mapping) -> dict:
    """Return the main scores of each split, for metrics.json."""
    return {
        split: {score.key: groups[score.group][score.key] for score in main_ones()} for split, groups in summary.items()
    }


def flat_metrics(summary: Mapping) -> dict[str, float]:
    """Return {'test/instance/dsb_score': ...} of a scores.json, the names that MLflow shows."""
    return {
        f"{split}/{group}/{name}": value
        for split, groups in summary.items()
        for group, values in groups.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


def text_table(summary: Mapping) -> str:
    """Return the main scores as a small table for the terminal, with intervals for scores that have one."""
    shown, floor = [score for score in scores.SCORES if score.main], _floor_columns()
    lines = [["", "images", *(score.short for score in shown), *(f"Otsu {score.short}" for score in floor)]]
    for split, groups in summary.items():
        values = [_with_interval(groups[score.group], score.key) for score in shown]
        lines.append([split, str(groups["n_images"]), *values, *(f"{groups[OTSU][score.key]:.3f}" for score in floor)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [[f"{cell:<{widths[0]}}" if n == 0 else f"{cell:>{widths[n]}}" for n, cell in enumerate(line)]
               for line in lines]  # fmt: skip
    return "\n".join("  ".join(line) for line in aligned)


def _with_interval(group: Mapping[str, float], key: str) -> str:
    low, high = group.get(f"{key}_low"), group.get(f"{key}_high")
    return f"{group[key]:.3f}" + (f" ({low:.3f}-{high:.3f})" if low is not None else "")


def score_rows(summary: Mapping) -> list[tuple[ScoreInfo, list[float | None]]]:
    """Return (score, [U-Net, Otsu on validation, U-Net, Otsu on test]) of each score; None: not measured."""
    return [
        (score, [value for split in layout.SCORED_SPLITS for value in (
            summary[split][score.group].get(score.key), summary[split][OTSU].get(score.key) if score.floor else None
        )])
        for score in listed()
    ]  # fmt: skip


def change_rows(before: Mapping, after: Mapping) -> list[tuple[ScoreInfo, list[float]]]:
    """Return (score, [before, after, difference on test, the same on validation]) of each score; NaN: missing."""
    rows = []
    for score in listed():
        values = []
        for split in reversed(layout.SCORED_SPLITS):
            old, new = (side[split].get(score.group, {}).get(score.key, np.nan) for side in (before, after))
            values += [old, new, new - old]
        rows.append((score, values))
    return rows
