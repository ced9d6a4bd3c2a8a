"""A model file and an image in, nuclei out; nothing else is needed."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork

from nuclei_unet.errors import InputError
from nuclei_unet.images import normalize
from nuclei_unet.network import keras_file, unet
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.prediction.segmenter import Segmenter
from tests import ROOT
from tests.metadata import metadata_of


@pytest.fixture(scope="module")
def metadata(settings, model_params):
    """Return the whole metadata of a tiny network."""
    predict = settings.evaluate.model_copy(update={"min_area": 1})
    return metadata_of(settings, model_params(stem_stride=2), predict=predict)


@pytest.fixture(scope="module")
def model(metadata):
    keras.utils.set_random_seed(3)
    return unet.build(1, metadata.targets, metadata.network)


@pytest.fixture(scope="module")
def path(model, metadata, tmp_path_factory):
    """Return the model's file."""
    path = tmp_path_factory.mktemp("models") / "model.keras"
    keras_file.save(model, path, metadata)
    return path


@pytest.fixture(scope="module")
def segmenter(path):
    return Segmenter.load(path, precision="float32")


def noise(shape, dtype):
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 1, shape)
    return pixels.astype(dtype) if np.dtype(dtype).kind == "f" else (pixels * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (37, 53), (40, 33, 1), (40, 33, 2), (40, 33, 3), (40, 33, 4)])
def test_any_array_that_is_an_image(shape, dtype, segmenter, model, metadata):
    image = noise(shape, dtype)
    labels = segmenter(image)
    assert labels.shape == shape[:2] and labels.dtype == np.uint16
    # What the parts make of it, one after the other.
    predictor = Predictor(TensorFlowNetwork(model, metadata.network, "float32"), metadata.network, metadata.predict)
    np.testing.assert_array_equal(labels, predictor.labels(normalize(image, metadata.normalize)))
    table = segmenter.measure(labels, image)
    assert len(table["label"]) == labels.max() == np.unique(labels[labels > 0]).size


def test_an_image_of_one_value_is_no_error(segmenter):
    assert segmenter(np.full((20, 30), 7, np.uint8)).shape == (20, 30)


@pytest.mark.parametrize("image", [np.full((9, 9), np.nan), np.zeros((9, 9, 5)), np.zeros((0, 9)), np.zeros(9)])
def test_what_is_no_image_is_an_input_error(image, segmenter):
    with pytest.raises(InputError):
        segmenter(image)


def test_a_network_that_sees_resized_images_labels_at_native_size(model, metadata):
    small = metadata.model_copy(update={"normalize": metadata.normalize.model_copy(update={"image_size": (16, 16)})})
    assert Segmenter(TensorFlowNetwork(model, metadata.network), Metadata(metadata=small))(
        noise((50, 41), np.uint8)
    ).shape == (
        50,
        41,
    )


def test_other_prediction_settings_can_be_given(path, metadata, segmenter):
    image = noise((64, 64), np.uint8)
    large = Segmenter.load(path, predict=metadata.predict.model_copy(update={"min_area": 10**6}), precision="float32")
    assert not large(image).any()
    assert large.metadata.predict.min_area == 10**6 and segmenter.metadata.predict.min_area == 1


def test_loading_leaves_the_users_precision_alone(path):
    before = keras.config.dtype_policy().name
    for precision in ("mixed_bfloat16", "float32"):
        Segmenter.load(path, precision=precision)
        assert keras.config.dtype_policy().name == before


def test_a_model_that_was_not_evaluated_is_refused(model, metadata, tmp_path):
    trained = metadata.model_copy(update={"predict": None})
    keras_file.save(model, tmp_path / "trained.keras", trained)
    with pytest.raises(InputError, match=r"trained\.keras: was trained but not evaluated.*run `dvc repro evaluate`"):
        Segmenter.load(tmp_path / "trained.keras")
    with pytest.raises(InputError, match="was trained but not evaluated"):
        Segmenter(TensorFlowNetwork(model, metadata.network), Metadata(metadata=trained))


def test_a_metadata_of_another_network_is_named_with_its_file(path, metadata, tmp_path):
    other = metadata.model_copy(update={"network": metadata.network.model_copy(update={"filters": (4, 6)})})
    keras_file.copy_with_metadata(path, tmp_path / "other.keras", other)
    with pytest.raises(InputError, match=r"other\.keras: its layers are not those of its recipe"):
        Segmenter.load(tmp_path / "other.keras")


@pytest.mark.parametrize("name", ["no such file.keras", "damaged.keras"])
def test_a_file_that_is_no_model_is_named(name, tmp_path):
    (tmp_path / "damaged.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match=name):
        Segmenter.load(tmp_path / name)


def test_the_library_starts_without_tensorflow_and_the_project(path, tmp_path):
    """In a process that finds nuclei_unet and not pipeline, as a served model does."""
    (tmp_path / "nuclei_unet").symlink_to(ROOT / "nuclei_unet")
    code = f"""
import sys
import nuclei_unet
assert not {{"tensorflow", "keras"}} & set(sys.modules)
segmenter = nuclei_unet.Segmenter.load({str(path)!r})
import numpy as np
print(segmenter(np.eye(40)).shape)
assert not {{"pipeline", "mlflow", "dvc", "ruamel.yaml", "jinja2"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "(40, 40)\n" and not done.stderr, done.stderr
