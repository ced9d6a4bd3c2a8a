"""OME-Zarr: what the package zarr finds in it, and the labels come back."""

import json

import numpy as np
import pytest
import zarr

from nuclei_unet.formats import zarr_labels
from tests.nuclei_unet.formats.label_images import LABELS, same
from tests.refusals import refused

LARGE = np.zeros((1500, 2100), np.uint32)
LARGE[700:1300, 900:1100] = 70_000
LARGE[5, 7] = 2


def test_a_pyramid_with_pixel_size(tmp_path):
    path = tmp_path / "a.ome.zarr"
    zarr_labels.write(path, LARGE, 0.5)
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 2 and group.attrs["image-label"] == {"version": "0.4"}
    (pyramid,) = group.attrs["multiscales"]
    assert pyramid["axes"] == [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    assert [dataset["path"] for dataset in pyramid["datasets"]] == ["0", "1", "2"]
    for level, dataset in enumerate(pyramid["datasets"]):
        assert dataset["coordinateTransformations"] == [{"type": "scale", "scale": [0.5 * 2**level] * 2}]
        array = group[dataset["path"]]
        assert np.array_equal(array[:], LARGE[:: 2**level, :: 2**level])
        assert max(array.chunks) <= 1024 and array.dtype == np.uint32
    # Nested chunks, as version 0.4 wants them; chunks without nuclei take no space.
    chunks = [file.relative_to(path / "0").as_posix() for file in (path / "0").rglob("[0-9]") if file.is_file()]
    assert sorted(chunks) == ["0/0", "0/1", "1/0", "1/1"]
    assert not (path / "0/0/2").exists()


@pytest.mark.parametrize("channels", [None, 2, 3])
def test_with_its_image(tmp_path, channels):
    path = tmp_path / "cells.ome.zarr"
    shape = LARGE.shape if channels is None else (*LARGE.shape, channels)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    zarr_labels.write(path, LARGE, None, image)
    assert same(zarr_labels.read(path), LARGE)
    root = zarr.open_group(path, mode="r")
    (pyramid,) = root.attrs["multiscales"]
    names = [axis["name"] for axis in pyramid["axes"]]
    assert pyramid["name"] == "cells" and names == (["y", "x"] if channels is None else ["c", "y", "x"])
    assert not any("unit" in axis for axis in pyramid["axes"])
    assert np.array_equal(root["0"][:], image if channels is None else np.moveaxis(image, 2, 0))
    assert ("omero" in root.attrs) == (channels == 3)
    assert root["labels"].attrs["labels"] == ["nuclei"]
    label = root["labels/nuclei"]
    assert label.attrs["image-label"] == {"version": "0.4", "source": {"image": "../../"}}
    # The specification wants as many levels of labels as of the image.
    assert len(label.attrs["multiscales"][0]["datasets"]) == len(pyramid["datasets"]) == 3


def test_version_0_5_and_other_names_are_read(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    parent = root.create_group("labels", attributes={"ome": {"version": "0.5", "labels": ["cells"]}})
    about = {"version": "0.5", "image-label": {}, "multiscales": [{"datasets": [{"path": "s0"}]}]}
    parent.create_group("cells", attributes={"ome": about}).create_array("s0", data=LABELS[None, None].astype(np.int32))
    assert same(zarr_labels.read(tmp_path / "a.zarr"), LABELS)
    assert same(zarr_labels.read(tmp_path / "a.zarr/labels/cells"), LABELS)
    parent.attrs["ome"] = {"version": "0.5", "labels": ["cells", "others"]}
    refused(r"has 2 label images \(cells, others\), none called nuclei", zarr_labels.read, tmp_path / "a.zarr")
    parent.attrs["ome"] = {"version": "0.5", "labels": ["cells", "nuclei"]}
    about["multiscales"][0]["datasets"][0]["path"] = "other"
    parent.create_group("nuclei", attributes={"ome": about}).create_array("other", data=LABELS % 7)
    assert same(zarr_labels.read(tmp_path / "a.zarr"), LABELS % 7)


def test_what_is_none_is_named(tmp_path):
    path = tmp_path / "a.zarr"
    refused("no such folder", zarr_labels.read, path)
    path.mkdir()
    refused("a.zarr: is not an OME-Zarr", zarr_labels.read, path)
    zarr.open_group(path, mode="w", zarr_format=2)
    refused("has 0 label images", zarr_labels.read, path)
    zarr_labels.write(path, LABELS)
    about = json.loads((path / ".zattrs").read_text())
    about["multiscales"][0]["datasets"][0]["path"] = "../../etc"
    for text in (json.dumps(about), "{"):
        (path / ".zattrs").write_text(text)
        refused("not an OME-Zarr", zarr_labels.read, path)
