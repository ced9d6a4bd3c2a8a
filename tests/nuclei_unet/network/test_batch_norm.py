"""The fused normalization against that of Keras."""

import keras
import numpy as np
import tensorflow as tf

from nuclei_unet.network.batch_norm import FusedBatchNormalization


def test_the_fused_normalization_is_keras_own():
    inputs = np.random.default_rng(0).normal(3, 2, (4, 8, 8, 5)).astype(np.float32)
    outputs, moving = [], []
    for kind in (keras.layers.BatchNormalization, FusedBatchNormalization):
        layer = kind(momentum=0.9)
        with tf.GradientTape() as tape:
            x = tf.constant(inputs)
            tape.watch(x)
            training = layer(x, training=True)
            loss = tf.reduce_sum(training**3)
        outputs.append([training, tape.gradient(loss, x), layer(inputs, training=False)])
        moving.append(layer.get_weights())
    for ours, theirs in zip(outputs[1][:2], outputs[0][:2], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    # The kernel's moving variance is the sum of squares over n - 1, that of Keras over n.
    for ours, theirs in zip([outputs[1][2], *moving[1]], [outputs[0][2], *moving[0]], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3)
