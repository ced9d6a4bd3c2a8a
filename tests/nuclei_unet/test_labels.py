"""Label images: another size, other numbers, small nuclei."""

import numpy as np
import pytest
from skimage.measure import label

from nuclei_unet.labels import renumber, resize_labels, without_small


def test_resize_labels_takes_the_nearest():
    labels = np.array([[0, 300], [7, 1]], np.uint16)
    twice = resize_labels(labels, (4, 2))
    np.testing.assert_array_equal(twice, [[0, 300], [0, 300], [7, 1], [7, 1]])
    np.testing.assert_array_equal(resize_labels(twice, (2, 2)), labels)
    assert twice.dtype == np.uint16
    assert resize_labels(labels, (2, 2)) is labels


def test_renumber_closes_gaps_and_holds_65535_nuclei():
    found = renumber(np.array([[7, 0, 300], [70000, 7, 0]]))
    np.testing.assert_array_equal(found, [[1, 0, 2], [3, 1, 0]])
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(renumber(np.array([[5, 5]])), [[1, 1]])
    full = np.arange(2**16).reshape(256, 256)
    np.testing.assert_array_equal(renumber(full), full)
    for more in (full + 1, np.arange(2**16 + 1)[None]):
        with pytest.raises(ValueError, match="65536 nuclei"):
            renumber(more)
    with pytest.raises(ValueError, match="65536 nuclei"):
        without_small(np.arange(1, 2**16 + 1)[None], 1)


def test_nuclei_that_are_too_small_are_dropped():
    labels = label(np.array([[1, 0, 1, 1, 0, 1, 1, 1]]))
    found = without_small(labels, 2)
    np.testing.assert_array_equal(found, [[0, 0, 1, 1, 0, 2, 2, 2]])
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(without_small(np.array([[0, 3, 3, 1]]), 0), [[0, 2, 2, 1]])
    assert not without_small(labels, 4).any()
    assert not without_small(np.zeros((2, 3), int), 1).any()
