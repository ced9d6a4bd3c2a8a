"""From nuclei to target maps."""

import numpy as np
import pytest

from nuclei_unet.training.targets import target_maps
from tests.nuclei_unet.nuclei import SEPARATE, TOUCHING, drawn


def test_foreground_is_where_labels_are_and_touching_nuclei_have_a_border_between_them():
    targets = target_maps(TOUCHING)
    assert targets.shape == (60, 80, 3) and targets.dtype == np.uint8
    np.testing.assert_array_equal(targets[..., 0], np.where(TOUCHING > 0, 255, 0))
    border = targets[..., 1]
    assert set(np.unique(border)) == {0, 255}
    _, columns = np.nonzero(border)
    assert columns.min() > 30 and columns.max() < 47
    # All along where both labels meet, to either side.
    sides = (TOUCHING[:, :-1] != TOUCHING[:, 1:]) & (TOUCHING[:, :-1] > 0) & (TOUCHING[:, 1:] > 0)
    assert sides.any() and border[:, :-1][sides].all() and border[:, 1:][sides].all()
    assert not target_maps(SEPARATE)[..., 1].any()
    np.testing.assert_array_equal(target_maps(np.zeros((3, 5), np.uint16)), np.zeros((3, 5, 3)))


def test_distance_is_full_inside_each_nucleus_and_falls_to_its_edge():
    labels = drawn((60, 80), (30, 20, 15), (30, 45, 9), (10, 70, 3))
    distance = target_maps(labels)[..., 2]
    assert (distance[labels == 0] == 0).all() and (distance[labels > 0] > 0).all()
    assert [distance[labels == number].max() for number in (1, 2, 3)] == [255, 255, 255]
    middle = distance[30, 6:21].astype(int)
    assert middle[0] < 40 and (np.diff(middle) >= 0).all() and middle[-1] >= 250
    # It drops between touching nuclei.
    distance = target_maps(TOUCHING)[30, 20:60, 2].astype(int)
    meeting = int(np.flatnonzero(np.diff(TOUCHING[30, 20:60].astype(int)))[0])
    assert distance[meeting : meeting + 2].max() < 60 < distance[meeting - 8] and distance[meeting + 9] > 60


def test_a_nucleus_of_one_pixel():
    labels = np.zeros((5, 5), np.uint16)
    labels[2, 2] = 1
    targets = target_maps(labels)
    np.testing.assert_array_equal(targets[2, 2], [255, 0, 255])
    assert targets.astype(int).sum() == 2 * 255


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (40, 30)])
def test_a_nucleus_that_covers_everything(shape):
    np.testing.assert_array_equal(target_maps(np.ones(shape, np.uint16)), np.broadcast_to([255, 0, 255], (*shape, 3)))


@pytest.mark.parametrize("numbers", [(300, 301), (256, 65535), (65535, 7)])
def test_large_label_numbers_and_gaps_change_nothing(numbers):
    np.testing.assert_array_equal(target_maps(np.array([0, *numbers], np.uint16)[TOUCHING]), target_maps(TOUCHING))
