"""Losses and metrics of maps, worked out by hand."""

import numpy as np

from nuclei_unet.training import losses


def maps_of(*rows):
    """Return maps (N, 1, W, 1), a list a map."""
    return np.array(rows, np.float32)[:, None, :, None]


def test_losses_by_hand():
    truth = maps_of([0, 0, 1, 1] * 500)
    for loss in (losses.bce, losses.bce_dice):
        assert loss(truth, truth).shape == (1,)
        assert float(loss(truth, truth)[0]) < 1e-5
        assert float(loss(truth, 1 - truth)[0]) > 10
    bce = losses.bce(maps_of([1, 0], [1, 1]), maps_of([0.5, 0.5], [0.25, 1]))
    np.testing.assert_allclose(bce, [np.log(2), np.log(4) / 2], rtol=1e-5)
    truth, predicted = maps_of([1, 1, 0, 0]), maps_of([0.5, 0.5, 0.5, 0.5])
    # shared 1, total 2 + 2, and 100 on top of both
    np.testing.assert_allclose(losses.bce_dice(truth, predicted), [np.log(2) + 1 - 102 / 104], rtol=1e-5)
    empty = maps_of([0] * 50)
    assert float(losses.bce_dice(empty, empty)[0]) < 1e-5


def test_iou_and_dice_by_hand():
    truth = maps_of([1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1])
    predicted = maps_of([0.9, 0.6, 0.5, 0.8], [0.1, 0.2, 0.5, 0], [0.6, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1])
    # 0.5 is not above the threshold.
    np.testing.assert_allclose(losses.iou(truth, predicted), [2 / 4, 1, 0, 0, 1])
    np.testing.assert_allclose(losses.dice(truth, predicted), [4 / 6, 1, 0, 0, 1], rtol=1e-6)
