"""ROI zips: roifile reads what ImageJ would, and numbers and pixels survive."""

import zipfile

import numpy as np
import pytest
import roifile

from nuclei_unet.formats import rois
from tests.nuclei_unet.formats.label_images import LABELS, same
from tests.refusals import refused


def test_what_imagej_finds(tmp_path):
    rois.write(tmp_path / "a.zip", LABELS % 60_000)
    found = {roi.name: roi for roi in roifile.roiread(tmp_path / "a.zip")}
    assert list(found) == ["00001", "00002", "00004", "00005", "00009", "10000"]
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"{name}.roi" for name in found]
    simple = found["00009"]
    assert simple.roitype == roifile.ROI_TYPE.POLYGON
    assert simple.coordinates().tolist() == [[5, 0], [7, 0], [7, 2], [5, 2]]
    assert (simple.left, simple.top, simple.right, simple.bottom) == (5, 0, 7, 2)
    for name, rings in (("10000", 2), ("00005", 3), ("00004", 2)):
        # ImageJ's decoder wants the type of a rectangle for a composite.
        assert found[name].composite and found[name].roitype == roifile.ROI_TYPE.RECT
        assert len(found[name].coordinates(multi=True)) == rings
    assert (found["10000"].left, found["10000"].top, found["10000"].right, found["10000"].bottom) == (0, 4, 5, 7)


def test_coordinates_up_to_imagejs_limit(tmp_path):
    labels = np.zeros((2, 60_535), np.uint16)
    labels[0, 32_000:40_000] = 1
    labels[1, -1] = 2
    rois.write(tmp_path / "a.zip", labels)
    assert same(rois.read(tmp_path / "a.zip", labels.shape), labels)
    refused("up to 60,535", rois.write, tmp_path / "b.zip", np.zeros((60_536, 1), np.uint8))


def box(**values):
    return roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, **values)


def test_rois_of_other_programs(tmp_path):
    points = np.array([[0.6, 0], [2.4, 0], [2.4, 2.2], [0.6, 2.2]], np.float32)
    found = {
        "x": roifile.ImagejRoi.frompoints(points, name="x"),
        "y": box(left=1, top=1, right=4, bottom=3, name="x"),
        "z": roifile.ImagejRoi(roitype=roifile.ROI_TYPE.LINE, x2=9, y2=9),
        "text": box(subtype=roifile.ROI_SUBTYPE.TEXT, right=9, bottom=9),
    }
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, roi in found.items():
            archive.writestr(f"{name}.roi", roi.tobytes())
        archive.writestr("note.txt", "no ROI")
    assert rois.read(tmp_path / "a.zip").tolist() == [[0, 1, 0, 0], [0, 1, 2, 2], [0, 2, 2, 2]]
    (tmp_path / "12.roi").write_bytes(box(left=0, top=1, right=1, bottom=2, name="12").tobytes())
    assert rois.read(tmp_path / "12.roi", (2, 2)).tolist() == [[0, 0], [12, 0]]


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.zip"
    refused("no such file", rois.read, path)
    path.write_bytes(b"PK no zip")
    refused("a.zip: not a zip", rois.read, path)
    rois.write(path, LABELS)
    whole = bytearray(path.read_bytes())
    whole[60] ^= 255
    path.write_bytes(whole)
    refused("a.zip: not a zip of ROIs, or damaged", rois.read, path)


@pytest.mark.parametrize("size", [0, 3, 63, 64, 70])
def test_a_roi_that_is_cut_short_is_named(tmp_path, size):
    roi = roifile.ImagejRoi.frompoints([[0, 0], [2, 0], [2, 2]], name="x").tobytes()
    (tmp_path / "a.roi").write_bytes(roi[:size])
    refused("a.roi: not a ROI", rois.read, tmp_path / "a.roi")
