"""The network: a U-Net (Ronneberger et al. 2015) in one function. Keras only, so that any backend can run it."""

import numpy as np
from keras import Model, layers

from nuclei_unet.network import encoder
from nuclei_unet.settings import NetworkSettings


def build(
    channels: int,
    targets: tuple[str, ...],
    settings: NetworkSettings,
    batch_normalization: type[layers.BatchNormalization] = layers.BatchNormalization,
) -> Model:
    """Build a U-Net for images of any height and width that `settings.size_multiple` divides.

    Input: float or uint8 (N, H, W, channels), 0 ... 255. Output: one map per target, {name: float32 (N, H, W, 1)},
    values in [0, 1]. `batch_normalization` may be a faster layer with the same weights.
    """
    image = layers.Input((None, None, channels), name="image")
    x = layers.Rescaling(1 / 255, name="to_unit_range")(image)
    if settings.stem_stride > 1:
        # The U-Net proper works on a coarser grid: a quarter of the work for the same field of view.
        options = {"activation": "relu", "kernel_initializer": "he_normal", "name": "stem"}
        x = layers.Conv2D(settings.filters[0], 5, settings.stem_stride, "same", **options)(x)

    norm = batch_normalization if settings.normalization == "batch" else None
    if settings.encoder == "none":
        skips = _encode(x, settings, norm)
    else:
        # The stem beside it learns details that the 16 channels of the encoder's first map have no place for.
        first, *others = encoder.efficientnet_lite0(image, len(settings.filters) + 1)
        skips = [layers.Concatenate(name="detail_join")([x, first]), *others]
    x = skips.pop()
    for level in reversed(range(len(skips))):
        filters, dropout = settings.filters[level], settings.dropout[level]
        skip = skips[level]
        if settings.join == "add":
            # Both projected to as many channels, the coarse one while it is small: half the work of the convolution
            # over all channels side by side (Lin et al. 2017, feature pyramid networks).
            x = layers.Conv2D(filters, 1, use_bias=False, name=f"up{level}_project")(x)
            skip = layers.Conv2D(filters, 1, name=f"up{level}_skip")(skip)
        if settings.upsampling == "transposed":
            x = layers.Conv2DTranspose(filters, 2, 2, name=f"up{level}_double")(x)
        else:
            x = layers.UpSampling2D(interpolation=settings.upsampling, name=f"up{level}_double")(x)
        join = layers.Add if settings.join == "add" else layers.Concatenate
        x = join(name=f"up{level}_join")([x, skip])
        x = _two_convolutions(x, filters, dropout, norm, f"up{level}")

    # With a stem this brings each target back to full size, as a 1x1 convolution and a pixel shuffle would.
    # float32 even in mixed precision: probabilities near 0 and 1 need the digits.
    stride, options = settings.stem_stride, {"activation": "sigmoid", "dtype": "float32"}
    maps = {name: layers.Conv2DTranspose(1, stride, stride, name=name, **options)(x) for name in targets}
    return Model(image, maps, name="unet")


def _encode(x, settings: NetworkSettings, norm: type[layers.BatchNormalization] | None) -> list:
    """Return the maps of each level, from the top."""
    skips = []
    for level, (filters, dropout) in enumerate(zip(settings.filters, settings.dropout, strict=True)):
        if level:
            x = layers.MaxPooling2D(name=f"down{level}_pool")(x)
        x = _two_convolutions(x, filters, dropout, norm, f"down{level}")
        skips.append(x)
    return skips


def _two_convolutions(x, filters: int, dropout: float, norm: type[layers.BatchNormalization] | None, name: str):
    for number in (1, 2):
        conv = f"{name}_conv{number}"
        options = {"use_bias": False} if norm else {"activation": "relu"}
        x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=conv, **options)(x)
        if norm:
            # Averages over about ten steps, not a hundred: validation follows the weights from the first epoch on.
            x = norm(momentum=0.9, name=f"{conv}_norm")(x)
            x = layers.Activation("relu", name=f"{conv}_relu")(x)
        if number == 1 and dropout:
            x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    return x


def fold_batch_normalization(model: Model, settings: NetworkSettings) -> Model:
    """Return a network that predicts the same maps, with batch normalization folded into the convolutions before it.

    At prediction, a normalization is one factor and one shift per channel. The convolution's weights can hold both,
    which saves a pass over the pixels (Jacob et al. 2018, section 3.2). A network without normalization is rebuilt
    as it is, in the current precision.
    """
    targets = tuple(model.output)
    folded = build(model.input_shape[-1], targets, settings.model_copy(update={"normalization": "none"}))
    for layer in folded.layers:
        weights = model.get_layer(layer.name).get_weights()
        if f"{layer.name}_norm" in {other.name for other in model.layers}:
            norm = model.get_layer(f"{layer.name}_norm")
            gamma, beta, mean, variance = norm.get_weights()
            factor = gamma / np.sqrt(variance + norm.epsilon)
            weights = [weights[0] * factor, beta - mean * factor]
        layer.set_weights(weights)
    return folded
