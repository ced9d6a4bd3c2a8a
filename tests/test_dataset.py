"""What the network sees of an image, the kinds of images, and the format on disk."""

import numpy as np
import pandas as pd
import pytest

from nuclei_unet import images
from nuclei_unet.errors import InputError
from nuclei_unet.images import has_light_background, normalize, to_rgb
from nuclei_unet.labels import resize_labels
from nuclei_unet.png import decode
from pipeline.dataset import processed as dataset
from pipeline.dataset import synthetic
from pipeline.dataset.kinds import LARGE_NUCLEUS, kind_of_image


@pytest.fixture
def preprocess(settings):
    """Return the committed `preprocess` section with other values for some of its keys."""
    plain = {
        "channels": 1,
        "image_size": None,
        "invert_light_background": True,
        "percentiles": (0.0, 100.0),
        "nucleus_intensity": None,
    }
    return lambda **values: settings.preprocess.model_copy(update=plain | values)


GREY = np.array([[0, 10], [20, 40], [5, 5]], np.uint8)
RGB = np.array([[[10, 20, 60], [0, 0, 0]]], np.uint8)


@pytest.mark.parametrize("image", [GREY, GREY[..., None], np.dstack([GREY, GREY // 2])])
def test_to_rgb_repeats_grey_and_drops_alpha(image):
    np.testing.assert_array_equal(to_rgb(image), np.dstack([GREY, GREY, GREY]))


def test_to_rgb_keeps_colours_and_drops_alpha():
    np.testing.assert_array_equal(to_rgb(RGB), RGB)
    np.testing.assert_array_equal(to_rgb(np.dstack([RGB, [[7, 255]]]).astype(np.uint8)), RGB)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
def test_to_rgb_keeps_the_dtype(dtype):
    assert to_rgb(GREY.astype(dtype)).dtype == dtype


@pytest.mark.parametrize("shape", [(3,), (2, 2, 5), (2, 2, 3, 1), (0, 5), (4, 0, 3)])
def test_what_is_no_image_is_refused(shape, preprocess):
    with pytest.raises(InputError, match="expected a grey or colour image"):
        normalize(np.zeros(shape, np.uint8), preprocess())


# Mostly dark, so nothing is inverted: 0 ... 40 becomes 0 ... 255.
STRETCHED = [[0, 64], [128, 255], [32, 32]]


@pytest.mark.parametrize("scale", [np.uint8(1), np.uint16(1000), np.float32(0.5), np.float64(-3) / -1e4])
def test_normalize_stretches_any_dtype_and_range(scale, preprocess):
    np.testing.assert_array_equal(normalize(GREY * scale, preprocess()), STRETCHED)


def test_normalize_takes_negative_values(preprocess):
    np.testing.assert_array_equal(normalize(GREY.astype(float) - 25, preprocess()), STRETCHED)


def test_normalize_of_grey_with_alpha_rgb_and_rgba(preprocess):
    rgb = np.dstack([GREY, GREY, GREY])
    for image in (np.dstack([GREY, GREY]), rgb, np.dstack([rgb, GREY])):
        np.testing.assert_array_equal(normalize(image, preprocess()), STRETCHED)


def test_channels_1_is_the_mean_and_3_keeps_colours(preprocess):
    # Means 30 and 0; all values 0 ... 60.
    np.testing.assert_array_equal(normalize(RGB, preprocess()), [[255, 0]])
    coloured = normalize(RGB, preprocess(channels=3))
    np.testing.assert_array_equal(coloured, [[[42, 85, 255], [0, 0, 0]]])


def test_percentiles_clip_outliers(preprocess):
    image = np.arange(101, dtype=np.uint8)[None]
    image[0, 100] = 255
    seen = normalize(image, preprocess(percentiles=(10.0, 90.0)))[0]
    assert (seen[:11] == 0).all() and (seen[90:] == 255).all() and seen[50] == 128


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (np.array([[0, 1, 200]], np.uint8), [[0, 1, 200]]),
        (np.array([[0, 257, 65535]], np.uint16), [[0, 1, 255]]),
        (np.array([[0, 0.2, 1]]), [[0, 51, 255]]),
        (np.array([[0, 0.2, 7]]), [[0, 51, 255]]),
    ],
)
def test_without_percentiles_the_range_of_the_dtype_counts(image, seen, preprocess):
    np.testing.assert_array_equal(normalize(image, preprocess(percentiles=None)), seen)


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shape", [(1, 1), (5, 4, 3)])
def test_a_constant_image_is_black(value, shape, preprocess):
    seen = normalize(np.full(shape, value, np.uint8), preprocess())
    np.testing.assert_array_equal(seen, np.zeros(shape[:2]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value, preprocess):
    with pytest.raises(InputError, match="NaN or infinite"):
        normalize(np.array([[0, value]]), preprocess())


def field(background, nucleus, dtype=np.uint8):
    """Return a 20 x 20 field with one nucleus of 16 pixels."""
    image = np.full((20, 20), background, dtype)
    image[4:8, 4:8] = nucleus
    return image


def test_the_typical_nucleus_has_the_same_intensity_whatever_a_few_bright_ones_have(preprocess):
    params = preprocess(nucleus_intensity=0.5)
    image = np.full((60, 60), 10, np.uint8)
    for row in range(5, 50, 10):  # ten nuclei
        image[row : row + 5, 10:15] = image[row : row + 5, 30:35] = 90
    alone = normalize(image, params)
    assert (alone[image == 90] == 128).all() and (alone[image == 10] == 0).all()
    bright = image.copy()
    bright[55:57, 50:52] = 150
    seen = normalize(bright, params)
    assert (seen[image == 90] == 128).all() and (seen[55:57, 50:52] > 200).all()
    # Light background: the same after inversion.
    np.testing.assert_array_equal(normalize(255 - bright, params), seen)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.array([[0, 1]], np.uint8), np.eye(9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_nucleus_intensity_of_next_to_nothing(image, channels, preprocess):
    seen = normalize(image, preprocess(nucleus_intensity=0.5, channels=channels))
    assert seen.dtype == np.uint8 and seen.shape[:2] == image.shape
    assert seen.max() in (0, 128)


@pytest.mark.parametrize("channels", [1, 3])
def test_large_images_are_worked_on_in_strips_and_sampled(channels, preprocess, monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.gamma(1, 20, (1100, 40, 3)).clip(0, 255).astype(np.uint8)
    params = preprocess(percentiles=(0.5, 99.5), nucleus_intensity=0.5, channels=channels)
    whole = normalize(image, params)
    assert whole.shape == ((1100, 40) if channels == 1 else (1100, 40, 3))
    # Strips of 512 lines meet without a seam: the image upside down has them elsewhere.
    np.testing.assert_array_equal(normalize(image[::-1], params), whole[::-1])
    monkeypatch.setattr(images, "LARGEST_WHOLE", 2000)  # every fourth line and column
    sampled = normalize(image, params)
    assert np.abs(sampled.astype(int) - whole).mean() < 5


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint8, 1), (np.uint16, 257), (np.float32, 1 / 255)])
def test_nuclei_are_brighter_than_their_background(dtype, scale, preprocess):
    for background, nucleus, light in ((10, 90, False), (230, 90, True)):
        image = field(background * scale, nucleus * scale, dtype)
        assert has_light_background(to_rgb(image)) is light
        seen = normalize(image, preprocess())
        np.testing.assert_array_equal(seen, field(0, 255))


def test_inversion_can_be_switched_off(preprocess):
    seen = normalize(field(230, 90), preprocess(invert_light_background=False))
    np.testing.assert_array_equal(seen, field(255, 0))


def test_image_size_is_height_and_width(preprocess):
    seen = normalize(field(10, 90), preprocess(image_size=(16, 32)))
    assert seen.shape == (16, 32) and seen.max() > 200
    assert normalize(field(10, 90), preprocess(image_size=(40, 16), channels=3)).shape == (40, 16, 3)


EXPECTED_KINDS = {
    "small fluorescent": {"small-fluorescent"},
    "large fluorescent": {"large-fluorescent"},
    "purple": {"purple-on-purple", "purple-on-white"},
    "grey": {"grey-tissue"},
}


@pytest.mark.parametrize("kind", synthetic.CROP_SHAPES)
def test_kind_of_drawn_images(kind, settings):
    for seed in range(4):
        rgb, labels = synthetic.draw_frame(kind, np.random.default_rng(seed), synthetic.CROP_SHAPES[kind])
        areas = np.bincount(labels.ravel())[1:]
        assert kind_of_image(rgb, np.median(areas)) in EXPECTED_KINDS[kind]
        # The sum of all that normalize does: nuclei are brighter than the rest.
        seen = normalize(rgb, settings.preprocess)
        assert seen[labels > 0].mean() > seen[labels == 0].mean() + 30


@pytest.mark.parametrize(
    ("background", "kind"),
    [
        ((240, 240, 240), "purple-on-white"),
        ((220, 180, 225), "purple-on-purple"),
        ((230, 220, 180), "purple-on-yellow"),
    ],
)
def test_kind_by_the_colour_of_the_background(background, kind):
    image = np.full((40, 40, 3), background, np.uint8)
    image[8:28, 8:28] = (110, 60, 150)
    assert kind_of_image(image, 400) == kind


def test_the_size_of_nuclei_counts_in_fluorescence_only():
    dark, grey = to_rgb(field(10, 90)), to_rgb(field(230, 90))
    assert kind_of_image(dark, LARGE_NUCLEUS - 1) == "small-fluorescent"
    assert kind_of_image(dark, LARGE_NUCLEUS) == "large-fluorescent"
    assert kind_of_image(grey, LARGE_NUCLEUS) == "grey-tissue"


def test_kinds_of_the_published_images(published_training, known_groups):
    by_eye = {
        ("white", "black"): "small-fluorescent",
        ("purple", "purple"): "purple-on-purple",
        ("purple", "white"): "purple-on-white",
        ("purple", "yellow"): "purple-on-yellow",
        ("black", "white"): "grey-tissue",
    }
    expected = {key: by_eye[row.foreground, row.background] for key, row in known_groups.iterrows()}
    assert [key for key, (kind, _) in published_training.items() if kind != expected[key]] == []


def write_manifest(folder, rows):
    pd.DataFrame(rows, columns=dataset.MANIFEST_COLUMNS).to_csv(folder / "manifest.csv", index=False)


def test_samples_come_back_as_written(tmp_path):
    # Ids that pandas would take for numbers, and two that it would take for gaps.
    ids = ["1e5", "007", "NA", "nan"]
    rng = np.random.default_rng(0)
    images = {
        name: rng.integers(0, 256, (5, 7, 3) if name == "007" else (4, 6), dtype=np.uint8, endpoint=False)
        for name in ids
    }
    labels = {name: np.full((4, 6), 300 + n, np.uint16) for n, name in enumerate(ids)}
    for name in ids:
        dataset.write_sample(tmp_path, name, images[name], labels[name])
    write_manifest(tmp_path, [(n, "test" if n == "nan" else "train", "grey-tissue", 0, 4, 6, 1) for n in ids])

    samples = dataset.read_split("train", tmp_path)
    assert [sample.image_id for sample in samples] == ["007", "1e5", "NA"]
    for sample in samples:
        np.testing.assert_array_equal(sample.image, images[sample.image_id])
        np.testing.assert_array_equal(sample.labels, labels[sample.image_id])
        assert (sample.image.dtype, sample.labels.dtype) == (np.uint8, np.uint16)
        assert (sample.split, sample.kind) == ("train", "grey-tissue")
    assert [sample.image_id for sample in dataset.read_split("test", tmp_path)] == ["nan"]
    assert dataset.read_split("validation", tmp_path) == []


def test_digits_alone_stay_an_id(tmp_path):
    write_manifest(tmp_path, [("007", "train", "grey-tissue", 0, 4, 6, 1)])
    assert dataset.read_manifest(tmp_path).image_id.tolist() == ["007"]


def test_processed_images_are_rgb_for_other_readers_too(tmp_path):
    dataset.write_sample(tmp_path, "a", RGB, np.ones((1, 2), np.uint16))
    stored = decode((tmp_path / "images" / "a.png").read_bytes(), "a")
    np.testing.assert_array_equal(stored, RGB)


def test_labels_beyond_a_byte_survive_the_disk(tmp_path):
    labels = np.array([[0, 255, 256, 65535]], np.uint16)
    dataset.write_labels(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(dataset.read_labels(tmp_path / "a.png"), labels)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.csv: no such file; run .dvc repro preprocess"):
        dataset.read_split("train", tmp_path)
    write_manifest(tmp_path, [("a", "train", "grey-tissue", 0, 4, 6, 1)])
    with pytest.raises(InputError, match=r"images.a\.png: missing or not a readable PNG"):
        dataset.read_split("train", tmp_path)
    dataset.write_sample(tmp_path, "a", RGB, np.ones((1, 2), np.uint16))
    (sample,) = dataset.read_split("train", tmp_path)
    (tmp_path / "labels" / "a.png").write_bytes(b"no PNG")
    with pytest.raises(InputError, match=r"labels.a\.png: missing or not a readable PNG"):
        sample.labels  # noqa: B018


def test_resize_labels_takes_the_nearest():
    labels = np.array([[0, 300], [7, 1]], np.uint16)
    twice = resize_labels(labels, (4, 2))
    np.testing.assert_array_equal(twice, [[0, 300], [0, 300], [7, 1], [7, 1]])
    np.testing.assert_array_equal(resize_labels(twice, (2, 2)), labels)
    assert twice.dtype == np.uint16
    assert resize_labels(labels, (2, 2)) is labels
