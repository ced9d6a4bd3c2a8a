"""A model file and an image in, nuclei out; nothing else is needed."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from skimage import data

from nuclei_unet.evaluation import metrics
from nuclei_unet.images import normalize, resize
from nuclei_unet.labels import resize_labels
from nuclei_unet.prediction import checks, models
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.prediction.segmenter import Segmenter
from tests import ROOT
from tests.nuclei_unet.nuclei import drawn
from tests.refusals import refused


@pytest.fixture(scope="module")
def opened():
    return models.load(threads=2)


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load(threads=2, gpu=False)


def noise(shape, dtype):
    pixels = np.random.default_rng(0).uniform(0, 1, shape)
    return pixels.astype(dtype) if np.dtype(dtype).kind == "f" else (pixels * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 1), np.uint8), ((1, 40), np.uint16), ((37, 53), np.int32), ((40, 33, 1), np.float32),
     ((40, 33, 2), np.uint8), ((40, 33, 3), np.float64), ((40, 33, 4), np.uint16)],
)  # fmt: skip
def test_any_array_that_is_an_image(shape, dtype, segmenter, opened):
    image = noise(shape, dtype)
    labels = segmenter(image)
    assert labels.shape == shape[:2] and labels.dtype == np.uint16
    # What the parts make of it, one after the other.
    predictor = Predictor(opened.network, opened.metadata)
    np.testing.assert_array_equal(labels, predictor.labels(normalize(image, opened.metadata.normalize)))
    assert len(segmenter.measure(labels, image)["label"]) == labels.max() == np.unique(labels[labels > 0]).size


@pytest.mark.parametrize("image", [np.full((9, 9), np.nan), np.zeros((9, 9, 5)), np.zeros((0, 9)), np.zeros(9)])
def test_what_is_no_image_is_an_input_error(image, segmenter):
    refused(None, segmenter, image)


def test_a_network_that_sees_resized_images_labels_at_native_size(opened):
    metadata = opened.metadata
    small = metadata.but(normalize=metadata.normalize.model_copy(update={"image_size": (16, 16)}), diameter=None)
    segmenter, image = Segmenter(opened.network, small), noise((50, 41), np.uint8)
    assert segmenter(image).shape == (50, 41)
    refused("no use for a diameter", segmenter, image, diameter=20)


@pytest.mark.parametrize("factor", [0.5, 1, 2, 4])
def test_nuclei_of_any_size_are_found_and_their_size_is_said(factor, segmenter):
    truth = drawn((200, 200), *((row, column, 10) for row in range(25, 200, 50) for column in range(25, 200, 50)))
    image = cv2.GaussianBlur(np.where(truth > 0, 180, 20).astype(np.float32), (0, 0), 1.5)
    shape = (round(200 * factor),) * 2
    image, truth = resize(image + noise(image.shape, np.float32) * 10, shape), resize_labels(truth, shape)
    labels, used = segmenter.find(image)
    assert labels.max() == 16 and len(metrics.instance_counts(truth, labels).matched_ious) == 16
    assert used.px == pytest.approx(20 * factor, rel=0.25) and (used.source, used.sure) == ("estimated", True)
    same, given = segmenter.find(image, diameter=used.px)
    np.testing.assert_array_equal(same, labels)
    assert given.source == "the user"


def test_an_image_keeps_nuclei_of_very_different_sizes(segmenter):
    small = [(row, column, 5) for row in range(15, 300, 30) for column in range(15, 130, 30)]
    truth = drawn((300, 300), *small, (80, 220, 30), (200, 220, 30))
    image = cv2.GaussianBlur(np.where(truth > 0, 180, 20).astype(np.float32), (0, 0), 1)
    matched = metrics.instance_counts(truth, segmenter(image + noise(image.shape, np.float32) * 10))
    assert len(matched.matched_ious) >= 0.9 * truth.max() and (np.sort(matched.matched_ious)[-2:] > 0.6).all()


@pytest.mark.parametrize("diameter", [50, 110])
def test_spots_inside_of_large_nuclei_are_not_taken_for_nuclei(diameter, segmenter):
    places = range(diameter, 6 * diameter, round(1.5 * diameter))
    truth = drawn((6 * diameter,) * 2, *((row, column, diameter // 2) for row in places for column in places))
    image = np.where(truth > 0, 90, 10).astype(np.uint8)
    rng, spots = np.random.default_rng(0), np.zeros_like(image)
    for x, y in rng.integers(0, len(image), (1000, 2)).tolist():  # as in mouse cells
        cv2.circle(spots, (x, y), round(diameter * rng.uniform(0.03, 0.07)), 120, -1)
    image = cv2.GaussianBlur(image + np.where(truth > 0, spots, 0).astype(np.float32), (0, 0), diameter / 50)
    labels, used = segmenter.find(image + noise(image.shape, np.float32) * 5)
    assert used.sure and used.px == pytest.approx(diameter, rel=0.15)
    assert len(metrics.instance_counts(truth, labels).matched_ious) == truth.max()
    assert checks.warnings(image, labels, used) == []


@pytest.mark.parametrize("picture", [data.text, data.page, data.gravel, data.grass])
def test_pictures_of_something_else_are_named(picture, segmenter):
    image = picture()[:256, :256]
    labels, used = segmenter.find(image)
    assert any(text.startswith("Unlike what the model knows") for text in checks.warnings(image, labels, used))


def test_any_diameter_is_taken(segmenter):
    assert segmenter(np.zeros((1, 1), np.int32), diameter=300).shape == (1, 1)
    assert segmenter(noise((70, 90), np.uint8), diameter=3.3).shape == (70, 90)


def test_a_model_that_was_not_evaluated_is_refused(opened):
    refused("trained but not evaluated", Segmenter, opened.network, opened.metadata.but(predict=None))


def test_the_library_starts_without_tensorflow_and_the_project(tmp_path):
    """In a process that finds nuclei_unet and not pipeline, as a served model does."""
    (tmp_path / "nuclei_unet").symlink_to(ROOT / "nuclei_unet")
    code = """
import sys
import nuclei_unet
segmenter = nuclei_unet.Segmenter.load()
import numpy as np
print(segmenter(np.eye(40)).shape)
heavy = {"tensorflow", "keras", "onnx", "distributed", "pipeline", "mlflow", "dvc", "ruamel.yaml", "jinja2"}
assert not heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "(40, 40)\n" and not done.stderr, done.stderr
