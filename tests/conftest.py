"""What several test modules share: the committed parameters, a small drawn data set, TensorFlow set up once."""

import os
import sys
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import settings as hypothesis_settings

from nuclei_unet.images import to_rgb
from nuclei_unet.png import decode
from pipeline import download, params
from pipeline.dataset import archives, frames
from pipeline.dataset.kinds import kind_of_image

PARAMS = Path(__file__).parents[1] / "params.yaml"
# The same examples in every run, however slow the machine is: a test that fails here fails everywhere.
hypothesis_settings.register_profile("same", derandomize=True, deadline=None)
hypothesis_settings.load_profile("same")


@pytest.fixture(autouse=True)
def own_tracking_store(tmp_path, monkeypatch):
    """Keep tests out of the user's MLflow, whatever the environment says."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


@pytest.fixture(scope="session")
def settings():
    """Return all parameters, as committed."""
    return params.load(PARAMS)


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """Return a folder as data/raw/: 20 drawn training images of 5 frames, 4 test images."""
    folder = tmp_path_factory.mktemp("raw")
    download.write_synthetic(folder, train=20, test=4, seed=7)
    return folder


@pytest.fixture(scope="session")
def published():
    """Return the folder of the real archives, or skip."""
    folder = Path(os.environ.get(download.ARCHIVES_VARIABLE) or "no such folder")
    if not (folder / "stage1_train.zip").is_file():
        pytest.skip(f"{download.ARCHIVES_VARIABLE} names no folder with stage1_train.zip")
    return folder


@pytest.fixture(scope="session")
def published_training(published):
    """Return ImageId -> (kind if all nuclei were small, border lines) of the real training images."""
    found = {}
    with archives.open_archive(published / "stage1_train.zip") as archive:
        for name, member in archives.check_members(archive).items():
            image_id, folder, _ = name.split("/")
            if folder == "images":
                rgb = to_rgb(decode(archive.read(member), name))
                found[image_id] = kind_of_image(rgb, median_area=0), frames.borders(rgb)
    return found


@pytest.fixture(scope="session")
def known_groups(published):
    """Return what people saw in the real images: mosaic (2x2 crops of one frame), foreground and background colour."""
    path = published / "known_groups.csv"
    if not path.is_file():
        pytest.skip("no known_groups.csv beside the archives")
    return pd.read_csv(path, index_col="image_id")


def pytest_collection_finish():
    """Pin TensorFlow as training does, before its first operation in any test, if a test module imported it."""
    if "tensorflow" in sys.modules:
        from nuclei_unet.network import runtime

        runtime.configure(params.load(PARAMS).train.model_copy(update={"precision": "float32"}))
