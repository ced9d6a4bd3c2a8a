"""What became of each nucleus, worked out by hand."""

import numpy as np
import pytest

from nuclei_unet.evaluation.outcomes import Outcome, errors

CORRECT, MISSED, FALSE, SPLIT, MERGED = Outcome


def outcomes(truth, predicted):
    of_truth, of_predicted = errors(np.array(truth), np.array(predicted))
    return of_truth.tolist(), of_predicted.tolist()


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        ([1, 1, 0, 2, 2, 0, 0], [1, 1, 0, 0, 0, 0, 3], ([CORRECT, MISSED], [CORRECT, FALSE])),
        ([1, 1, 0], [1, 0, 0], ([MISSED], [FALSE])),  # an IoU of exactly half is no match
        ([1, 1, 1, 1], [1, 1, 2, 2], ([SPLIT], [SPLIT, SPLIT])),
        ([1, 1, 1, 1], [1, 1, 1, 2], ([CORRECT], [CORRECT, FALSE])),  # a piece beside a match is no split
        ([1, 1, 1, 1, 0, 0], [1, 1, 0, 2, 2, 0], ([MISSED], [FALSE, FALSE])),  # nor one that is half outside
        ([1, 1, 2, 2], [7, 7, 7, 7], ([MERGED, MERGED], [MERGED])),
        ([1, 1, 1, 2], [1, 1, 1, 1], ([CORRECT, MISSED], [CORRECT])),  # matches the larger of two
    ],
)
def test_outcomes(truth, predicted, expected):
    assert outcomes([truth], [predicted]) == expected


def test_part_of_a_merger_and_of_a_split_counts_as_merged():
    truth = [[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 0]]
    predicted = [[5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 5, 5, 5, 5, 5]]
    # 5 holds most of 1 and all of 2 and 3, and matches none of them; 5 and 6 both lie mostly in 1.
    assert outcomes(truth, predicted) == ([MERGED, MERGED, MERGED], [MERGED, SPLIT])


def test_labels_with_gaps_and_images_without_background_or_nuclei():
    assert outcomes([[9, 9], [4, 4]], [[2, 2], [8, 8]]) == ([CORRECT, CORRECT], [CORRECT, CORRECT])
    assert outcomes([[0, 0]], [[0, 0]]) == ([], [])
    assert outcomes([[0, 0]], [[3, 3]]) == ([], [FALSE])
