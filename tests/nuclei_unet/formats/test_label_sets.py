"""Sets of label images in folders of several tools."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from nuclei_unet.errors import InputError
from nuclei_unet.formats import kaggle, label_tiff
from nuclei_unet.formats.label_sets import read_set

LABELS = np.zeros((8, 10), np.uint16)
LABELS[1:3, 1:4] = 3
LABELS[5:7, 5:9] = 300


def write(folder: Path, *names: str, labels: np.ndarray = LABELS) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".png":
            cv2.imwrite(str(file), labels)
        else:
            label_tiff.write_labels(file, labels)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a.tif", "a"),
        ("a.TIFF", "a"),
        ("a.png", "a"),
        ("a_labels.tif", "a"),
        ("a-labels.ome.tif", "a"),
        ("a_cp_masks.png", "a"),
        ("a.mask.png", "a"),
        ("a Label.png", "a"),
        ("well 1/plate_2/a_labelled.png", "well 1/plate_2/a"),
        ("a.b_c_seg.tif", "a.b_c"),
        ("_labels.tif", "_labels"),
        ("masks.png", "masks"),
        ("unlabels.png", "unlabels"),
        ("masks/a.png", "masks/a"),
    ],
)
def test_a_file_has_the_name_of_its_image(tmp_path, file, name):
    write(tmp_path, file)
    found = read_set(tmp_path)
    assert list(found) == [name]
    np.testing.assert_array_equal(found[name](), LABELS)


def test_what_lies_beside_label_images_with_endings_is_left_out(tmp_path):
    write(tmp_path, "a.tif", "a_cp_masks.png", "a_cp_outlines.png", "a-overlay.png", "ab.png", "b/a.png", ".a.png")
    (tmp_path / "a_seg.npy").touch()
    assert list(read_set(tmp_path)) == ["a", "ab", "b/a"]


def test_files_are_read_when_asked_for_and_several_of_one_name_are_an_error(tmp_path):
    write(tmp_path, "a.png", "a.tif", "b_label.png", "b_mask.png", "c.png")
    (tmp_path / "d.png").write_bytes(b"no PNG")
    found = read_set(tmp_path)
    assert list(found) == ["a", "b", "c", "d"]
    for name, said in (("a", "a: several label images, .*a.png, .*a.tif; keep one"), ("b", "several"), ("d", "d.png")):
        with pytest.raises(InputError, match=said):
            found[name]()
    np.testing.assert_array_equal(found["c"](), LABELS)


def test_folders_of_masks_and_csvs_of_run_lengths(tmp_path):
    for name in ("b", "a"):
        kaggle.write_masks(tmp_path / "masks", name, LABELS, LABELS)
    kaggle.write_csv(tmp_path / "truth.csv", [("b", LABELS), ("a", LABELS)])
    for found in (read_set(tmp_path / "masks"), read_set(tmp_path / "truth.csv")):
        assert list(found) == ["a", "b"]
        np.testing.assert_array_equal(found["a"](), LABELS)


def test_what_is_no_set_is_an_error(tmp_path):
    write(tmp_path, "a.png")
    (tmp_path / "empty").mkdir()
    for path, said in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "a.png", "neither a folder of label images nor a CSV"),
        (tmp_path / "empty", "holds no label images"),
        (tmp_path / "none.csv", "no such file"),
    ):
        with pytest.raises(InputError, match=f"{path.name}: .*{said}"):
            read_set(path)
