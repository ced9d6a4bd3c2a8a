"""The network: its maps, its variants, its normalization folded away."""

import keras
import numpy as np
import pytest

from nuclei_unet.network import unet


@pytest.mark.parametrize(("stem", "channels"), [(1, 3), (2, 1)])
def test_one_map_a_target_as_large_as_the_image(stem, channels, model_params):
    model = unet.build(channels, ("foreground", "distance"), model_params(stem_stride=stem))
    assert model.input_shape == (None, None, None, channels)
    maps = model(np.full((2, 8, 12, channels), 255, np.float32))
    assert list(maps) == ["foreground", "distance"]
    for values in maps.values():
        assert values.shape == (2, 8, 12, 1) and values.dtype == "float32"
        assert values.numpy().min() >= 0 and values.numpy().max() <= 1


@pytest.mark.parametrize(
    ("upsampling", "normalization", "dropout"),
    [
        ("nearest", "batch", (0.0, 0.0, 0.0)),
        ("bilinear", "none", (0.2, 0.0, 0.5)),
        ("transposed", "batch", (0.2, 0.0, 0.5)),
    ],
)
def test_variants(upsampling, normalization, dropout, model_params):
    params = model_params(filters=(2, 3, 4), dropout=dropout, normalization=normalization, upsampling=upsampling)
    model = unet.build(1, ("foreground",), params)
    assert model(np.zeros((1, 8, 8, 1), np.float32))["foreground"].shape == (1, 8, 8, 1)
    kinds = [type(layer).__name__ for layer in model.layers]
    # Five blocks of two convolutions: three down, two up.
    assert kinds.count("Conv2D") == 10
    assert kinds.count("BatchNormalization") == (10 if normalization == "batch" else 0)
    assert kinds.count("Dropout") == 3 * bool(any(dropout))  # levels 0 (down and up) and 2
    assert kinds.count("UpSampling2D") == (0 if upsampling == "transposed" else 2)
    assert kinds.count("Conv2DTranspose") == (3 if upsampling == "transposed" else 1)


def test_levels_that_are_added_take_half_the_work(model_params):
    shape = {"filters": (8, 16, 32), "dropout": (0.0,) * 3}
    sizes = [unet.build(1, ("foreground",), model_params(**shape, join=join)).get_layer("up0_conv1").kernel.shape
             for join in ("concatenate", "add")]  # fmt: skip
    assert sizes == [(3, 3, 24, 8), (3, 3, 8, 8)]


def test_mixed_precision_gives_float32_maps(model_params):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = unet.build(1, ("foreground",), model_params(stem_stride=2))
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("down0_conv1").compute_dtype == "bfloat16"
    assert model(np.zeros((1, 8, 8, 1), np.float32))["foreground"].dtype == "float32"


def test_folded_normalization_gives_the_same_maps(model_params):
    params = model_params(filters=(4, 6))
    model = unet.build(2, ("foreground", "distance"), params)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if layer.name.endswith("_norm"):  # as if trained: no mean of 0, no variance of 1
            layer.set_weights([rng.uniform(0.5, 2, weights.shape) for weights in layer.get_weights()])
    folded = unet.fold_batch_normalization(model, params)
    assert not [layer for layer in folded.layers if layer.name.endswith("_norm")]
    images = rng.uniform(0, 255, (2, 8, 8, 2)).astype(np.float32)
    for name, values in model(images, training=False).items():
        np.testing.assert_allclose(folded(images)[name], values, atol=1e-5)
