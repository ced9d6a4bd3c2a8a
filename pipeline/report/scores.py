"""The catalogue of all scores: their names and meanings, how they are measured, and where they are shown.

A new score needs only one entry in SCORES. Tables, metrics, MLflow, the report and the comparison of branches read the
catalogue and select by key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from nuclei_unet import metrics
from pipeline import layout

GROUPS = ("instance", "pixel", "pixel_pooled")  # of scores.json, in this order
OTSU = "otsu"  # the group with the scores of Otsu's threshold, without any learning


@dataclass(frozen=True)
class Counts:
    """What all scores are computed from: the pixels and the nuclei of one image, or of many together."""

    pixels: metrics.PixelCounts
    instances: metrics.InstanceCounts

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.pixels + other.pixels, self.instances + other.instances)


@dataclass(frozen=True)
class ImageCounts:
    """The counts of one image, of the U-Net and of Otsu's threshold."""

    image_id: str
    split: str
    kind: str
    shape: tuple[int, int]
    unet: Counts
    otsu: Counts


def count(truth: np.ndarray, predicted: np.ndarray) -> Counts:
    """Count what two label images (H, W) share."""
    return Counts(metrics.pixel_counts(truth, predicted), metrics.instance_counts(truth, predicted))


@dataclass(frozen=True)
class ScoreInfo:
    """One score.

    group, key : its place in scores.json; together its name in MLflow, group/key
    name, meaning : as people read them
    of : its value for one image, or for many whose counts were added
    over : how a split's value is computed: the mean of its images' values, the value of all counts added (pooled),
        or the low or high end of the mean's 95% bootstrap interval
    column : its column in per_image.csv; None if single images do not have it
    short : its heading in narrow tables
    main : one of the few for comparing branches, shown in metrics.json, the terminal and MLflow's page of all runs
    by_kind : also in the table of kinds of image
    floor : also measured for Otsu's threshold
    lower_is_better : otherwise higher is better
    """

    group: str
    key: str
    name: str
    meaning: str
    of: Callable[[Counts], float]
    over: Literal["mean", "pooled", "low", "high"] = "mean"
    column: str | None = None
    short: str = ""
    main: bool = False
    by_kind: bool = False
    floor: bool = False
    lower_is_better: bool = False

    @property
    def path(self) -> str:
        """Its name below a split, as MLflow shows it."""
        return f"{self.group}/{self.key}"


def _of_pixels(key: str) -> Callable[[Counts], float]:
    return lambda counts: metrics.pixel_scores(counts.pixels)[key]


def _of_nuclei(function: Callable[..., float], *arguments: float) -> Callable[[Counts], float]:
    return lambda counts: function(counts.instances, *arguments)


SCORES = (
    ScoreInfo(
        "pixel", "iou", "Pixel IoU",
        "Nucleus pixels in both truth and prediction, divided by those in either; mean over the images.",
        _of_pixels("iou"), column="iou", short="IoU", main=True, by_kind=True, floor=True,
    ),
    ScoreInfo(
        "pixel", "dice", "Pixel Dice",
        "Twice the nucleus pixels in both, divided by the sum of those in each; mean over the images.",
        _of_pixels("dice"), column="dice", short="Dice", by_kind=True,
    ),
    ScoreInfo(
        "pixel", "precision", "Pixel precision", "Share of the predicted nucleus pixels that are right.",
        _of_pixels("precision"), column="precision",
    ),
    ScoreInfo(
        "pixel", "recall", "Pixel recall", "Share of the true nucleus pixels that were found.",
        _of_pixels("recall"), column="recall",
    ),
    ScoreInfo(
        "instance", "dsb_score", "DSB score",
        "Kaggle's score of the 2018 Data Science Bowl: for each image the mean of TP / (TP + FP + FN) over the IoU "
        "thresholds 0.50, 0.55 … 0.95, then the mean over the images.",
        _of_nuclei(metrics.dsb_score), column="dsb_score", short="dsb_score", main=True, by_kind=True, floor=True,
    ),
    ScoreInfo(
        "instance", "dsb_score_low", "DSB score, from",
        "The lower end of the DSB score's 95% interval, found by resampling the images (bootstrap): how much the "
        "score depends on the choice of images.",
        _of_nuclei(metrics.dsb_score), over="low",
    ),
    ScoreInfo(
        "instance", "dsb_score_high", "DSB score, to", "The upper end of that interval.",
        _of_nuclei(metrics.dsb_score), over="high",
    ),
    ScoreInfo(
        "instance", "ap50", "AP at IoU 0.50",
        "TP / (TP + FP + FN) with the nuclei of all images pooled; a predicted nucleus is a true positive if its IoU "
        "with a true one is above 0.50.",
        _of_nuclei(metrics.average_precision, 0.5), over="pooled", column="ap50", short="AP50", main=True,
        by_kind=True, floor=True,
    ),
    ScoreInfo(
        "instance", "ap75", "AP at IoU 0.75", "The same, with matches above 0.75: outlines have to fit closely.",
        _of_nuclei(metrics.average_precision, 0.75), over="pooled", column="ap75",
    ),
    ScoreInfo(
        "instance", "ap90", "AP at IoU 0.90", "The same, with matches above 0.90: close to pixel-perfect.",
        _of_nuclei(metrics.average_precision, 0.9), over="pooled", column="ap90",
    ),
    ScoreInfo(
        "instance", "pq", "Panoptic quality",
        "Sum of the IoUs of the matches above 0.50, divided by TP + FP/2 + FN/2: how many nuclei were found times how "
        "well they fit.",
        _of_nuclei(metrics.panoptic_quality), over="pooled", column="pq",
    ),
    ScoreInfo(
        "instance", "count_error", "Count error",
        "|predicted − true| / true number of nuclei, mean over the images; lower is better.",
        _of_nuclei(metrics.count_error), column="count_error", lower_is_better=True,
    ),
    *(
        ScoreInfo(
            "pixel_pooled", key, f"Pixel {name}, pooled",
            f"The same as pixel {name} over the pixels of all images together: large images count for more.",
            _of_pixels(key), over="pooled",
        )
        for key, name in (("iou", "IoU"), ("dice", "Dice"), ("precision", "precision"), ("recall", "recall"))
    ),
)  # fmt: skip

# The score that decides which model is the champion, and that sorts experiments.
DECISIVE = "validation/instance/dsb_score"


def listed() -> list[ScoreInfo]:
    """Return the scores in the order of their groups, as tables show them."""
    return sorted(SCORES, key=lambda score: GROUPS.index(score.group))


def main_ones() -> list[ScoreInfo]:
    """Return the few scores by which people compare two branches."""
    return [score for score in listed() if score.main]


def row(item: ImageCounts) -> dict:
    """Return one image's row of per_image.csv."""
    height, width = item.shape
    return {
        "image_id": item.image_id,
        "split": item.split,
        "kind": item.kind,
        "height": height,
        "width": width,
        "nuclei": item.unet.instances.n_truth,
        "predicted_nuclei": item.unet.instances.n_predicted,
        **{score.column: score.of(item.unet) for score in SCORES if score.column},
        **{f"otsu_{score.column}": score.of(item.otsu) for score in _floor_columns()},
    }


def _floor_columns() -> list[ScoreInfo]:
    return [score for score in SCORES if score.floor and score.column and score.over == "mean"]


def summarise(items: Sequence[ImageCounts]) -> dict:
    """Return the scores of one split, {group: {key: value}}, and n_images; the group `otsu` holds Otsu's."""
    unet, otsu = [item.unet for item in items], [item.otsu for item in items]
    groups = {
        group: {score.key: _of_split(score, unet) for score in SCORES if score.group == group} for group in GROUPS
    }
    floor = {score.key: _of_split(score, otsu) for score in SCORES if score.floor}
    return {"n_images": len(items), **groups, OTSU: floor}


def _of_split(score: ScoreInfo, images: Sequence[Counts]) -> float:
    if score.over == "pooled":
        value = score.of(sum(images[1:], images[0]))
    else:
        values = [score.of(counts) for counts in images]
        low, high = metrics.bootstrap_interval(values) if score.over in ("low", "high") else (0, 0)
        value = {"low": low, "high": high}.get(score.over, np.mean(values))
    # Six digits are enough for 65 images, and easy to read in a diff.
    return round(float(value), 6)


def by_kind(images: pd.DataFrame) -> pd.DataFrame:
    """Return the means over images of each split and kind; `images` is per_image.csv."""
    groups = images.groupby(["split", "kind"], sort=True)
    table = groups[[column for column, _ in kind_columns(together=False)]].mean()
    table.insert(0, "n_images", groups.size())
    # Validation first: choices are made on it.
    return table.reset_index().sort_values(["split", "kind"], ascending=[False, True], ignore_index=True)


def kind_columns(together: bool = True) -> list[tuple[str, str]]:
    """Return (column, heading) of the scores in by_kind.csv; Otsu's beside the U-Net's if `together`, else last."""
    order = listed() if together else SCORES
    shown = [score for score in order if score.by_kind and score.column]
    floor = {score.key: (f"otsu_{score.column}", f"Otsu {score.short}") for score in _floor_columns() if score.by_kind}
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
    shown, floor = [score for score in SCORES if score.main], _floor_columns()
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
