"""Scores of a prediction against the truth, by pixels and by instances, and the counts behind them.

All functions are pure and take the truth first. A label image is an integer array (H, W), 0 = background,
every other value one nucleus.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import NamedTuple

import numpy as np

# Kaggle's 2018 Data Science Bowl: 0.50, 0.55 ... 0.95, written so that 0.6 is 0.6 and not 0.6000000000000001.
IOU_THRESHOLDS = tuple(step / 100 for step in range(50, 100, 5))


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of one image: nucleus in both, in the prediction only, in the truth only."""

    true_positive: int
    false_positive: int
    false_negative: int

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))


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


class Overlaps(NamedTuple):
    """The k pairs of a true and a predicted label that share pixels, in ascending order.

    true, predicted : int64 (k,); 0 is the background, i the i-th nucleus in ascending order of labels
    pixels : int64 (k,), how many pixels they share
    true_areas, predicted_areas : int64 (n_true + 1,) and (n_predicted + 1,), pixels of the background and each nucleus
    """

    true: np.ndarray
    predicted: np.ndarray
    pixels: np.ndarray
    true_areas: np.ndarray
    predicted_areas: np.ndarray

    def of_nuclei(self) -> "Overlaps":
        """Return the pairs of two nuclei, without the background."""
        kept = (self.true > 0) & (self.predicted > 0)
        return self._replace(true=self.true[kept], predicted=self.predicted[kept], pixels=self.pixels[kept])

    def ious(self) -> np.ndarray:
        """Return the intersection over union of each pair, float64 (k,)."""
        return self.pixels / (self.true_areas[self.true] + self.predicted_areas[self.predicted] - self.pixels)


def overlaps(truth: np.ndarray, predicted: np.ndarray) -> Overlaps:
    """Return what the labels of two label images (H, W) share. Labels may have gaps, and be as many as fit in."""
    _check_shapes(truth, predicted)
    (t, n_true), (p, n_predicted) = _ranks(truth), _ranks(predicted)
    # A table of all pairs would take 80 GB for 100,000 nuclei; few of them touch.
    pairs, pixels = np.unique(t * (n_predicted + 1) + p, return_counts=True)
    areas = np.bincount(t, minlength=n_true + 1), np.bincount(p, minlength=n_predicted + 1)
    return Overlaps(*np.divmod(pairs, n_predicted + 1), pixels, *areas)


def _ranks(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Return each pixel's number in Overlaps, int64 (H * W,), and the number of nuclei."""
    values, ranks = np.unique(labels, return_inverse=True)
    # A fully covered image has no background.
    missing = int(0 not in values[:1])
    return ranks.ravel() + missing, values.size - 1 + missing


def overlap_matrix(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the pixels that each pair of labels shares, int64 (n_true + 1, n_predicted + 1); see `Overlaps`."""
    shared = overlaps(truth, predicted)
    matrix = np.zeros((shared.true_areas.size, shared.predicted_areas.size), np.int64)
    matrix[shared.true, shared.predicted] = shared.pixels
    return matrix


@dataclass(frozen=True)
class InstanceCounts:
    """Nuclei of one image: how many there are, how many were predicted, the IoU of each match above 0.5."""

    n_truth: int
    n_predicted: int
    matched_ious: tuple[float, ...]


def instance_counts(truth: np.ndarray, predicted: np.ndarray) -> InstanceCounts:
    """Match nuclei of two label images (H, W) at an IoU strictly above 0.5, where none can match twice."""
    shared = overlaps(truth, predicted).of_nuclei()
    ious = shared.ious()
    return InstanceCounts(shared.true_areas.size - 1, shared.predicted_areas.size - 1, tuple(ious[ious > 0.5].tolist()))


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
    from scipy.stats import bootstrap  # takes 0.35 s

    # Seeded, so the same scores give the same interval.
    resampled = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        method="percentile",
        rng=2018,
        batch=max(2**22 // len(values), 1),  # 10,000 samples of 10,000 images at once would take 800 MB
    )
    return float(resampled.confidence_interval.low), float(resampled.confidence_interval.high)


def pooled(counts: Iterable[InstanceCounts]) -> InstanceCounts:
    """Sum the counts of many images."""
    counts = list(counts)
    return InstanceCounts(
        sum(one.n_truth for one in counts),
        sum(one.n_predicted for one in counts),
        # Not one by one: each sum of two would copy all that came before.
        tuple(itertools.chain.from_iterable(one.matched_ious for one in counts)),
    )


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 1.0


def _check_shapes(truth: np.ndarray, predicted: np.ndarray) -> None:
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise ValueError(f"label images must be 2-D and of the same shape, found {truth.shape} and {predicted.shape}")
