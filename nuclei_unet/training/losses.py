"""Losses and training-time metrics. Keras only, so that any backend can run them.

All take maps (N, H, W, 1) with values in [0, 1], the truth first, and return one value per image, (N,).
"""

import keras
from keras import ops

PIXELS = (1, 2, 3)


def bce(truth, predicted):
    """Binary cross-entropy, mean over pixels."""
    return ops.mean(keras.losses.binary_crossentropy(truth, predicted), axis=(1, 2))


def bce_dice(truth, predicted):
    """Binary cross-entropy plus 1 - soft Dice: the first judges each pixel, the second makes small parts count."""
    truth = ops.cast(truth, predicted.dtype)
    shared = ops.sum(truth * predicted, axis=PIXELS)
    total = ops.sum(truth, axis=PIXELS) + ops.sum(predicted, axis=PIXELS)
    # A map without foreground has no meaningful Dice; the constant keeps its share small and smooth.
    return bce(truth, predicted) + 1 - (2 * shared + 100) / (total + 100)


def iou(truth, predicted):
    """Intersection over union of foreground at threshold 0.5; 1 where both are empty."""
    shared, total = _foreground(truth, predicted)
    return ops.where(total > 0, shared / ops.maximum(total - shared, 1), 1.0)


def dice(truth, predicted):
    """Dice coefficient of foreground at threshold 0.5; 1 where both are empty."""
    shared, total = _foreground(truth, predicted)
    return ops.where(total > 0, 2 * shared / ops.maximum(total, 1), 1.0)


def _foreground(truth, predicted):
    t = ops.cast(truth > 0.5, "float32")
    p = ops.cast(predicted > 0.5, "float32")
    return ops.sum(t * p, axis=PIXELS), ops.sum(t, axis=PIXELS) + ops.sum(p, axis=PIXELS)
