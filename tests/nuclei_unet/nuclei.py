"""Drawn nuclei, and whether they were found again."""

import numpy as np
from skimage.draw import disk

from nuclei_unet.evaluation import metrics


def drawn(shape, *circles):
    """Return a label image of circles (row, column, radius); later ones lie under earlier ones."""
    labels = np.zeros(shape, np.uint16)
    for number, (row, column, radius) in reversed(list(enumerate(circles, start=1))):
        labels[disk((row, column), radius, shape=shape)] = number
    return labels


TOUCHING = drawn((60, 80), (30, 25, 14), (30, 52, 14))
SEPARATE = drawn((60, 80), (30, 18, 12), (30, 60, 12))


def assert_same_nuclei(labels, truth, iou=0.8):
    found = metrics.instance_counts(truth, labels)
    assert found.n_truth == found.n_predicted == sum(matched > iou for matched in found.matched_ious)
