"""The catalogue of all scores: their names and meanings, how they are measured, and where they are shown.

A new score needs only one entry in SCORES. All tables, pages and files read the catalogue and select by key.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nuclei_unet.evaluation import metrics

GROUPS = ("instance", "pixel", "pixel_pooled")  # of scores.json, in this order


@dataclass(frozen=True)
class Counts:
    """What all scores are computed from: the pixels and the nuclei of one image, or of many together."""

    pixels: metrics.PixelCounts
    instances: metrics.InstanceCounts


def count(truth: np.ndarray, predicted: np.ndarray) -> Counts:
    """Count what two label images (H, W) share."""
    return Counts(metrics.pixel_counts(truth, predicted), metrics.instance_counts(truth, predicted))


@dataclass(frozen=True)
class ScoreInfo:
    """One score.

    group, key : its place in scores.json; together its name in MLflow, group/key
    name, meaning : as people read them
    of : its value for one image, or for many whose counts were added
    over : how the value of a set of images is computed: the mean of its images' values, the value of all counts added
        (pooled), or the low or high end of the mean's 95% bootstrap interval
    column : its column in tables of images; None if single images do not have it
    short : its heading in narrow tables
    main : one of the few that stand for all
    by_type : also shown for each image type, where kinds are known
    floor : also measured for a simple method, to compare with
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
    by_type: bool = False
    floor: bool = False
    lower_is_better: bool = False

    @property
    def path(self) -> str:
        """Its name among all scores, such as instance/ap50."""
        return f"{self.group}/{self.key}"


def _of_pixels(key: str) -> Callable[[Counts], float]:
    return lambda counts: metrics.pixel_scores(counts.pixels)[key]


def _of_nuclei(function: Callable[..., float], *arguments: float) -> Callable[[Counts], float]:
    return lambda counts: function(counts.instances, *arguments)


SCORES = (
    ScoreInfo(
        "pixel", "iou", "Pixel IoU",
        "Nucleus pixels in both truth and prediction, divided by those in either; mean over the images.",
        _of_pixels("iou"), column="iou", short="IoU", main=True, by_type=True, floor=True,
    ),
    ScoreInfo(
        "pixel", "dice", "Pixel Dice",
        "Twice the nucleus pixels in both, divided by the sum of those in each; mean over the images.",
        _of_pixels("dice"), column="dice", short="Dice", by_type=True,
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
        _of_nuclei(metrics.dsb_score), column="dsb_score", short="dsb_score", main=True, by_type=True, floor=True,
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
        by_type=True, floor=True,
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


def listed() -> list[ScoreInfo]:
    """Return the scores in the order of their groups, as tables show them."""
    return sorted(SCORES, key=lambda score: GROUPS.index(score.group))


def main_ones() -> list[ScoreInfo]:
    """Return the few scores that stand for all."""
    return [score for score in listed() if score.main]


def of_image(counts: Counts) -> dict[str, float]:
    """Return the scores of one image by the names of their columns."""
    return {score.column: score.of(counts) for score in SCORES if score.column}


def of_images(images: Sequence[Counts]) -> dict[str, dict[str, float]]:
    """Return the scores of a set of images, at least one: {group: {key: value}}, in the order of the groups."""
    return {group: values([score for score in SCORES if score.group == group], images) for group in GROUPS}


def values(scores: Sequence[ScoreInfo], images: Sequence[Counts]) -> dict[str, float]:
    """Return {key: value} of some scores of a set of images, at least one."""
    pixels = sum((image.pixels for image in images), metrics.PixelCounts(0, 0, 0))
    together = Counts(pixels, metrics.pooled(image.instances for image in images))

    def value(score: ScoreInfo) -> float:
        if score.over == "pooled":
            return score.of(together)
        each = [score.of(counts) for counts in images]
        if score.over == "mean":
            return float(np.mean(each))
        return metrics.bootstrap_interval(each)[("low", "high").index(score.over)]

    # Six digits are enough for thousands of images, and easy to read in a diff.
    return {score.key: round(value(score), 6) for score in scores}
