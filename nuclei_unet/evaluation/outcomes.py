"""What became of each nucleus: correct, missed, false, split or merged."""

from enum import IntEnum

import numpy as np

from nuclei_unet.evaluation.metrics import overlaps


class Outcome(IntEnum):
    """What became of a nucleus, true or predicted; the numbers index an error map, where 0 is background."""

    CORRECT = 1
    MISSED = 2
    FALSE = 3
    SPLIT = 4
    MERGED = 5


def errors(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say what became of each nucleus of two label images (H, W).

    correct : a true and a predicted nucleus whose IoU is above 0.5
    merged : an unmatched prediction that holds more than half of each of two or more true nuclei, and those nuclei
    split : an unmatched true nucleus that holds more than half of each of two or more predictions, and those
    missed : any other true nucleus
    false : any other prediction

    A nucleus that is part of a merger and of a split counts as merged.

    Returns
    -------
    Outcomes of the true and of the predicted nuclei, uint8 (n_truth,) and (n_predicted,), labels in ascending order.
    """
    shared = overlaps(truth, predicted).of_nuclei()
    t, p, matched = shared.true, shared.predicted, shared.ious() > 0.5
    n_true, n_predicted = shared.true_areas.size, shared.predicted_areas.size
    in_prediction = shared.pixels * 2 > shared.true_areas[t]  # most of the true nucleus
    in_truth = shared.pixels * 2 > shared.predicted_areas[p]  # most of the predicted one
    merging = np.bincount(p[in_prediction], minlength=n_predicted) >= 2
    merging[p[matched]] = False
    divided = np.bincount(t[in_truth], minlength=n_true) >= 2
    divided[t[matched]] = False

    of_truth = np.full(n_true, Outcome.MISSED, np.uint8)
    of_truth[divided] = Outcome.SPLIT
    of_truth[t[in_prediction & merging[p]]] = Outcome.MERGED
    of_truth[t[matched]] = Outcome.CORRECT
    of_predicted = np.full(n_predicted, Outcome.FALSE, np.uint8)
    of_predicted[p[in_truth & divided[t]]] = Outcome.SPLIT
    of_predicted[merging] = Outcome.MERGED
    of_predicted[p[matched]] = Outcome.CORRECT
    return of_truth[1:], of_predicted[1:]
