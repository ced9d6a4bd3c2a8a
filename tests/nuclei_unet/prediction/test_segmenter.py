"""A model file and an image in, nuclei out; nothing else is needed."""

import subprocess
import sys

import numpy as np
import pytest

from nuclei_unet.errors import InputError
from nuclei_unet.images import normalize
from nuclei_unet.prediction import models
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline.dataset import synthetic
from tests import ROOT


@pytest.fixture(scope="module")
def opened():
    """Return the pretrained model."""
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
    predictor = Predictor(opened.network, opened.metadata.network, opened.metadata.predict)
    np.testing.assert_array_equal(labels, predictor.labels(normalize(image, opened.metadata.normalize)))
    table = segmenter.measure(labels, image)
    assert len(table["label"]) == labels.max() == np.unique(labels[labels > 0]).size


@pytest.mark.parametrize("image", [np.full((9, 9), np.nan), np.zeros((9, 9, 5)), np.zeros((0, 9)), np.zeros(9)])
def test_what_is_no_image_is_an_input_error(image, segmenter):
    with pytest.raises(InputError):
        segmenter(image)


def test_a_network_that_sees_resized_images_labels_at_native_size(opened):
    metadata = opened.metadata
    small = metadata.but(normalize=metadata.normalize.model_copy(update={"image_size": (16, 16)}))
    assert Segmenter(opened.network, small)(noise((50, 41), np.uint8)).shape == (50, 41)


def test_an_image_seen_at_another_scale_keeps_its_size(segmenter):
    _, image, _ = next(synthetic.held_out_images(1, 2018))
    for scale in (0.5, 1.7):
        labels = segmenter(image, scale=scale)
        assert labels.shape == image.shape[:2] and labels.any()
    assert segmenter(np.zeros((1, 1), np.int32), scale=0.1).shape == (1, 1)


def test_a_model_that_was_not_evaluated_is_refused(opened):
    with pytest.raises(InputError, match="trained but not evaluated"):
        Segmenter(opened.network, opened.metadata.but(predict=None))


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
