"""An encoder that has learned from photographs to see: EfficientNet-Lite0. Keras only, so that any backend can run it.

Tan and Le 2019, https://arxiv.org/abs/1905.11946, in Google's variant for phones: no squeeze and excitation, ReLU6.
There is no batch normalization; `imagenet.load` folds it into the weights, which saves time and memory in training.
"""

from keras import layers

# Kernel size, stride, expansion, filters and repetitions of each group of blocks.
GROUPS = (
    (3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)  # fmt: skip
PREFIX = "encoder"  # of its layers' names


def efficientnet_lite0(image, depth: int) -> list:
    """Return the maps of an image after strides of 2, 4 ... 2**depth, with 16, 24, 40, 112 and 320 channels.

    `image` is (N, H, W, channels), 0 ... 255; 2**depth divides its sides; `depth` is 1 to 5.
    """
    x = layers.Rescaling(1 / 128, -127 / 128, name=f"{PREFIX}_range")(image)
    x = _convolution(x, 32, 3, 2, f"{PREFIX}_stem", active=True)
    skips, number = [], 0
    for kernel, stride, expansion, filters, repetitions in GROUPS:
        if stride == 2:
            skips.append(x)
            if len(skips) == depth:
                return skips
        for repetition in range(repetitions):
            before, name = x, f"{PREFIX}_block{number}"
            if expansion > 1:
                x = _convolution(x, expansion * x.shape[-1], 1, 1, f"{name}_expand", active=True)
            # TensorFlow's gradient of a depthwise convolution takes up to seven times as long in bfloat16 on a CPU.
            stride_here, options = 1 if repetition else stride, {"activation": "relu6", "dtype": "float32"}
            x = layers.DepthwiseConv2D(kernel, stride_here, "same", name=f"{name}_depthwise", **options)(x)
            x = _convolution(x, filters, 1, 1, f"{name}_project", active=False)
            if repetition:
                x = layers.Add(name=f"{name}_add")([before, x])
            number += 1
    return [*skips, x]


def _convolution(x, filters: int, kernel: int, stride: int, name: str, *, active: bool):
    return layers.Conv2D(filters, kernel, stride, "same", activation="relu6" if active else None, name=name)(x)
