"""Formats of label images, and where label images are found in folders of several tools."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_unet.files import tree_digest
from nuclei_unet.formats import geojson, kaggle, label_tiff, registry
from nuclei_unet.formats.registry import check_writable, find_labels
from tests.nuclei_unet.formats.label_images import label_images, same
from tests.refusals import refused

LABELS = np.zeros((8, 10), np.uint16)
LABELS[1:3, 1:4] = 3
LABELS[5:7, 5:9] = 300


def write(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".png":
            cv2.imwrite(str(file), LABELS)
        else:
            label_tiff.write_labels(file, LABELS)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *((file, "a") for file in ("a.TIFF", "a.png", "a-labels.ome.tif", "a_cp_masks.png", "a Label.png")),
        ("well 1/plate_2/a_labelled.png", "well 1/plate_2/a"),
        ("a.b_c_seg.tif", "a.b_c"),
        ("_labels.tif", "_labels"),
        ("unlabels.png", "unlabels"),
        ("masks/a.png", "masks/a"),
    ],
)
def test_a_file_has_the_name_of_its_image(tmp_path, file, name):
    write(tmp_path, file)
    sources = find_labels(tmp_path, "tiff")
    assert list(sources) == [name]
    np.testing.assert_array_equal(sources[name].load(), LABELS)


def test_what_lies_beside_label_images_with_endings_is_left_out(tmp_path):
    write(tmp_path, "a.tif", "a_cp_masks.png", "a_cp_outlines.png", "a-overlay.png", "ab.png", "b/a.png", ".a.png")
    geojson.write(tmp_path / "a.geojson", LABELS)  # as `predict` leaves it beside label images
    assert list(find_labels(tmp_path)) == ["a", "ab", "b/a"]


def test_files_are_read_when_asked_for_and_several_of_one_name_are_an_error(tmp_path):
    write(tmp_path, "a.png", "a.tif", "b_label.png", "b_mask.png", "c.png")
    (tmp_path / "d.png").write_bytes(b"no PNG")
    sources = find_labels(tmp_path)
    assert list(sources) == ["a", "b", "c", "d"]
    for name, said in (("a", "a: several .*a.png, .*a.tif"), ("b", "several"), ("d", "d.png")):
        refused(said, sources[name].load)
    np.testing.assert_array_equal(sources["c"].load(), LABELS)


def test_one_file_for_all_names_images_without_their_suffix(tmp_path):
    kaggle.write_csv(tmp_path / "a.csv", [("b.png", LABELS), ("a", LABELS)])
    sources = find_labels(tmp_path / "a.csv")
    assert list(sources) == ["a", "b"] and sources["b"].title == "b.png"
    np.testing.assert_array_equal(sources["b"].load(), LABELS)


@given(label_images(), st.sampled_from(registry.READ))
def test_any_label_image_survives(tmp_path_factory, labels, to):
    one = registry.FORMATS[to]
    folder = tmp_path_factory.mktemp(to) / "new"
    images = {"a": labels, 'b, "ü"': labels.T}
    if one.together:
        one.write_all(folder / one.ending, images.items())
    else:
        for name, each in images.items():
            one.write(folder, name, each, pixel_size=0.25)
    sources = find_labels(folder / one.ending if one.together else folder, to)
    assert list(sources) == list(images)
    assert all(same(sources[name].load(each.shape), each) for name, each in images.items())
    assert not list(folder.rglob("*partial*"))


@pytest.mark.parametrize("to", registry.READ)
def test_the_same_labels_give_the_same_bytes(here, to, monkeypatch):
    one, digests = registry.FORMATS[to], []
    for time in (0, 1e9):
        monkeypatch.setattr("time.time", lambda now=time: now)
        if one.together:
            one.write_all(here / "out" / one.ending, [("x", LABELS)])
        else:
            one.write(here / "out", "x", LABELS, pixel_size=0.5)
        digests.append(tree_digest([here / "out"]))
    assert digests[0] == digests[1]


def test_formats_that_cannot_be_written_are_named(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    check_writable(["geojson", "coco"])
    for name, said in (("svg", "svg: .*geojson"), ("parquet", r"parquet: .*pyarrow.*\[parquet\]")):
        refused(said, check_writable, [name])
