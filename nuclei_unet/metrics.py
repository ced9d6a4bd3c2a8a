"""Scores of a prediction against the truth, by pixels and by instances, and the counts behind them.

All functions are pure and take the truth first. A label image is an integer array (H, W), 0 = background,
every other value one nucleus.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

# Kaggle's 2018 Data Science Bowl: 0.50, 0.55 ... 0.95, written so that 0.6 is 0.6 and not 0.6000000000000001.
IOU_THRESHOLDS = tuple(step / 100 for step in range(50, 100, 5))


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of one image: nucleus in both, in the prediction only, in the truth only."""

    true_positive: int
    false_positive: int
    false_negative: int

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )


def pixel_counts(truth: np.ndarray, predicted: np.ndarray) -> PixelCounts:
    """Count foreground pixels of two label images or masks (H, W)."""
    _check_shapes(truth, predicted)
    t, p = truth > 0, predicted > 0
    return PixelCounts(int((t & p).sum()), int((~t & p).sum()), int((t & ~p).sum()))


def pixel_scores(counts: PixelCounts) -> dict[str, float]:
    """IoU, Dice, precision and recall of the foreground; 1 where there is nothing to find and nothing was found."""
    tp, fp, fn = counts.true_positive, counts.false_positive, counts.false_negative
    return {
        "iou": _ratio(tp, tp + fp + fn),
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "recall": _ratio(tp, tp + fn),
    }


def overlap_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the pixels that each pair of labels shares, int64 (n_truth + 1, n_predicted + 1).

    Row and column 0 are the background. Labels may have gaps: row i is the i-th label in ascending order.
    """
    _check_shapes(truth, predicted)
    t_values, t = np.unique(truth, return_inverse=True)
    p_values, p = np.unique(predicted, return_inverse=True)
    matrix = np.zeros((t_values.size, p_values.size), np.int64)
    np.add.at(matrix, (t.ravel(), p.ravel()), 1)
    # A fully covered image has no background; give it an empty row or column.
    if t_values[0] != 0:
        matrix = np.vstack([np.zeros((1, matrix.shape[1]), np.int64), matrix])
    if p_values[0] != 0:
        matrix = np.hstack([np.zeros((matrix.shape[0], 1), np.int64), matrix])
    return matrix


def iou_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each pair of nuclei, float64 (n_truth, n_predicted)."""
    overlap = overlap_matrix(truth, predicted)
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0, keepdims=True) - overlap
    return (overlap / np.maximum(union, 1))[1:, 1:]


@dataclass(frozen=True)
class InstanceCounts:
    """Nuclei of one image: how many there are, how many were predicted, the IoU of each match above 0.5."""

    n_truth: int
    n_predicted: int
    matched_ious: tuple[float, ...]

    def __add__(self, other: "InstanceCounts") -> "InstanceCounts":
        return InstanceCounts(
            self.n_truth + other.n_truth,
            self.n_predicted + other.n_predicted,
            self.matched_ious + other.matched_ious,
        )


def instance_counts(truth: np.ndarray, predicted: np.ndarray) -> InstanceCounts:
    """Match nuclei of two label images (H, W).

    A match needs an IoU strictly above 0.5. Nuclei do not overlap, so none can match twice and no assignment is
    needed.
    """
    iou = iou_matrix(truth, predicted)
    return InstanceCounts(iou.shape[0], iou.shape[1], tuple(float(value) for value in iou[iou > 0.5]))


def average_precision(counts: InstanceCounts, threshold: float) -> float:
    """TP / (TP + FP + FN), where a match needs an IoU strictly above `threshold` (at least 0.5).

    For one image this is the term that Kaggle averages. For summed counts it is StarDist's pooled AP
    (Schmidt et al. 2018), except that StarDist counts IoU >= threshold.
    """
    if threshold < 0.5:
        raise ValueError(f"threshold {threshold}: below 0.5 a nucleus could match twice")
    matches = sum(iou > threshold for iou in counts.matched_ious)
    return _ratio(matches, counts.n_truth + counts.n_predicted - matches)


def dsb_score(counts: InstanceCounts) -> float:
    """Kaggle's score of one image: average precision, averaged over IoU thresholds 0.50, 0.55 ... 0.95.

    Source: the evaluation page of the 2018 Data Science Bowl. The competition's score is the mean over images.
    """
    return float(np.mean([average_precision(counts, threshold) for threshold in IOU_THRESHOLDS]))


def panoptic_quality(counts: InstanceCounts) -> float:
    """Sum of matched IoUs / (TP + FP/2 + FN/2) at IoU 0.5 (Kirillov et al. 2019)."""
    return _ratio(sum(counts.matched_ious), (counts.n_truth + counts.n_predicted) / 2)


def count_error(counts: InstanceCounts) -> float:
    """|predicted - true| / true number of nuclei; for an image without nuclei, the number predicted."""
    return abs(counts.n_predicted - counts.n_truth) / max(counts.n_truth, 1)


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the mean score, by the percentile bootstrap (Efron 1979) over images.

    `values` has one score per image. A single image says nothing about others; the result is its own value twice.
    """
    if len(values) < 2:
        return float(np.mean(values)), float(np.mean(values))
    # Seeded, so the same scores give the same interval.
    found = bootstrap((values,), np.mean, confidence_level=confidence, method="percentile", rng=2018)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def pooled(counts: Iterable[InstanceCounts]) -> InstanceCounts:
    """Sum the counts of many images."""
    return sum(counts, InstanceCounts(0, 0, ()))


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 1.0


def _check_shapes(truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise ValueError(f"label images must be 2-D and of the same shape, found {truth.shape} and {predicted.shape}")
