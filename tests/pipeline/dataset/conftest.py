"""The real training images, and what people saw in them."""

import os
from pathlib import Path

import pandas as pd
import pytest

from nuclei_unet.formats.png import decode
from nuclei_unet.images import to_rgb
from pipeline import download
from pipeline.dataset import archives, frames
from pipeline.dataset.image_types import image_type_of


@pytest.fixture(scope="session")
def published():
    """Return the folder of the real archives, or skip."""
    folder = Path(os.environ.get(download.ARCHIVES_VARIABLE) or "no such folder")
    if not (folder / "stage1_train.zip").is_file():
        pytest.skip(f"{download.ARCHIVES_VARIABLE} names no folder with stage1_train.zip")
    return folder


@pytest.fixture(scope="session")
def published_training(published):
    """Return ImageId -> (image_type if all nuclei were small, border lines) of the real training images."""
    found = {}
    with archives.open_archive(published / "stage1_train.zip") as archive:
        for name, member in archives.check_members(archive).items():
            image_id, folder, _ = name.split("/")
            if folder == "images":
                rgb = to_rgb(decode(archive.read(member), name))
                found[image_id] = image_type_of(rgb, median_area=0), frames.borders(rgb)
    return found


@pytest.fixture(scope="session")
def known_groups(published):
    """Return what people saw in the real images: mosaic (2x2 crops of one frame), foreground and background colour."""
    path = published / "known_groups.csv"
    if not path.is_file():
        pytest.skip("no known_groups.csv beside the archives")
    return pd.read_csv(path, index_col="image_id")
