"""What became of each nucleus: correct, missed, false, split or merged."""

from enum import IntEnum

import numpy as np

from nuclei_unet.metrics import iou_matrix, overlap_matrix


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
    overlap = overlap_matrix(truth, predicted)
    matched = iou_matrix(truth, predicted) > 0.5
    in_prediction = overlap[1:, 1:] * 2 > overlap[1:].sum(axis=1, keepdims=True)  # most of the true nucleus
    in_truth = overlap[1:, 1:] * 2 > overlap[:, 1:].sum(axis=0, keepdims=True)  # most of the predicted one
    merging = ~matched.any(axis=0) & (in_prediction.sum(axis=0) >= 2)
    divided = ~matched.any(axis=1) & (in_truth.sum(axis=1) >= 2)

    of_truth = np.full(matched.shape[0], Outcome.MISSED, np.uint8)
    of_truth[divided] = Outcome.SPLIT
    of_truth[in_prediction[:, merging].any(axis=1)] = Outcome.MERGED
    of_truth[matched.any(axis=1)] = Outcome.CORRECT
    of_predicted = np.full(matched.shape[1], Outcome.FALSE, np.uint8)
    of_predicted[in_truth[divided].any(axis=0)] = Outcome.SPLIT
    of_predicted[merging] = Outcome.MERGED
    of_predicted[matched.any(axis=0)] = Outcome.CORRECT
    return of_truth, of_predicted
