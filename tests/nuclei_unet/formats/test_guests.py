"""What we write, as other people's programs read it: napari the label TIFFs, ome-zarr the OME-Zarr."""

import json

import numpy as np
import pytest

from nuclei_unet.formats import label_tiff, zarr_labels

pytestmark = pytest.mark.interop

LABELS = np.zeros((60, 80), np.uint16)
LABELS[5:20, 5:20], LABELS[20:31, 20:70], LABELS[59, 79] = 1, 3, 300
IMAGE = np.random.default_rng(0).integers(0, 4000, (60, 80, 3)).astype(np.uint16)

# As the window does it, without one.
NAPARI = """
import sys
import numpy as np
from napari.components import ViewerModel
from npe2 import PluginManager

PluginManager.instance().discover()
(layer,) = ViewerModel().open(sys.argv[1], plugin="napari", layer_type="labels")
np.save(sys.argv[2], layer.data)
print(type(layer).__name__)
"""
OME_ZARR = """
import json
import sys
from pathlib import Path
import numpy as np
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

nodes = [node for node in Reader(parse_url(sys.argv[1]))() if node.data]
for number, node in enumerate(nodes):
    np.save(Path(sys.argv[2], f"{number}.npy"), node.data[0].compute())
print(json.dumps([
    [
        [type(spec).__name__ for spec in node.specs],
        node.metadata["name"],
        [axis["name"] + " " + axis.get("unit", "") for axis in node.metadata["axes"]],
        [level[0]["scale"] for level in node.metadata["coordinateTransformations"]],
        [level.shape for level in node.data],
    ]
    for node in nodes
]))
"""


@pytest.mark.parametrize(("labels", "pixel_size"), [(LABELS, 0.25), (LABELS.astype(np.uint32) * 1000, None)])
def test_napari_shows_the_labels_of_a_tiff(labels, pixel_size, guest, tmp_path):
    label_tiff.write_labels(tmp_path / "a.tif", labels, pixel_size)
    assert guest(NAPARI, tmp_path / "a.tif", tmp_path / "seen.npy").split() == ["Labels"]
    seen = np.load(tmp_path / "seen.npy")
    assert seen.dtype == labels.dtype
    np.testing.assert_array_equal(seen, labels)


def test_ome_zarr_finds_image_labels_and_pixel_size(guest, tmp_path):
    zarr_labels.write(tmp_path / "a.ome.zarr", LABELS, 0.25, IMAGE)
    image, labels = json.loads(guest(OME_ZARR, tmp_path / "a.ome.zarr", tmp_path))
    assert image == [["Multiscales"], "a", ["c ", "y micrometer", "x micrometer"], [[1, 0.25, 0.25]], [[3, 60, 80]]]
    assert labels == [["Label", "Multiscales"], "nuclei", ["y micrometer", "x micrometer"], [[0.25, 0.25]], [[60, 80]]]
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy"), np.moveaxis(IMAGE, 2, 0))
    np.testing.assert_array_equal(np.load(tmp_path / "1.npy"), LABELS)


def test_ome_zarr_finds_labels_alone_and_all_levels(guest, tmp_path):
    labels = np.kron(np.arange(1, 13, dtype=np.uint16).reshape(3, 4), np.ones((400, 400), np.uint16))
    zarr_labels.write(tmp_path / "a.ome.zarr", labels, None)
    (found,) = json.loads(guest(OME_ZARR, tmp_path / "a.ome.zarr", tmp_path))
    assert found[0] == ["Label", "Multiscales"] and found[2] == ["y ", "x "]
    assert found[3:] == [[[1, 1], [2, 2]], [[1200, 1600], [600, 800]]]
    np.testing.assert_array_equal(np.load(tmp_path / "0.npy"), labels)
