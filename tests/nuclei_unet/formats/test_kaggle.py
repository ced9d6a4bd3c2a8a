"""Kaggle's CSV of run lengths, and its folders of masks."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nuclei_unet.formats import kaggle, run_lengths
from tests.images import png
from tests.nuclei_unet.formats.label_images import LABELS
from tests.refusals import refused


def read(path: Path) -> dict[str, np.ndarray]:
    return {name: labels() for name, labels in kaggle.read_csv(path).items()}


def solution(tmp_path: Path, *rows: str, header: str = "ImageId,EncodedPixels,Height,Width,Usage") -> Path:
    path = tmp_path / "solution.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_csv_becomes_label_images(tmp_path):
    rows = ("a,1 2,3,2,Public", "b,4 1,2,2,Public", "a,2 2 6 1,3,2,Public", "c,,1,2,Public")
    labels = read(solution(tmp_path, *rows))
    assert {key: image.dtype for key, image in labels.items()} == dict.fromkeys("abc", np.dtype(np.uint16))
    assert labels["a"].tolist() == [[1, 0], [1, 0], [2, 2]]  # pixel 2 stays with the earlier row
    assert labels["b"].tolist() == [[0, 0], [0, 1]]
    assert labels["c"].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("a,1 2 3,3,2,Public", "3 numbers, but run lengths are pairs"),
        ("a,1 1,4,2,Public", r"\(4, 2\) pixels, but \(3, 2\)"),
        ("a,1 1,x,2,Public", "Height: not a list"),
        ("a,1 1,3,0,Public", "Width: 0 is outside"),
        ("a,1 1,3,9999999999,Public", "Width: 9999999999 is outside"),
        ("b,1 1,50000,50000,Public", "at most 2,000,000,000"),
        (",1 1,3,2,Public", "ImageId is empty"),
        ("a", "line 3"),
    ],
)
def test_faults_of_a_solution_name_file_and_line(tmp_path, row, match):
    path = solution(tmp_path, "a,1 1,3,2,Public", row)
    assert f"{path}, line 3" in refused(match, read, path)


def test_faults_of_the_csv_itself(tmp_path):
    refused("column Height is missing", read, solution(tmp_path, header="ImageId,EncodedPixels,Width"))
    refused("no such file", read, tmp_path / "absent.csv")
    for data in (b"", b"\x89PNG\xff\xfe,\x00", b"a,b\n1,2,3\n1\n1,2,3,4\n"):
        (tmp_path / "bad.csv").write_bytes(data)
        refused("bad.csv", read, tmp_path / "bad.csv")


def test_other_programs_read_the_csv(tmp_path):
    path = tmp_path / "nuclei.csv"
    kaggle.write_csv(path, [("full", LABELS), ("none", np.zeros((2, 3), np.uint8))])
    table = pd.read_csv(path, keep_default_na=False)
    assert list(table) == ["ImageId", "EncodedPixels", "Height", "Width", "Label"]
    full = table[table.ImageId == "full"]
    assert full.Label.tolist() == np.unique(LABELS)[1:].tolist()
    for row in full.itertuples():
        assert row.EncodedPixels == run_lengths.encode_run_lengths(row.Label == LABELS)
    assert table.iloc[-1].tolist() == ["none", "", 2, 3, 0]


@pytest.mark.parametrize("label", ["0", "-1", "x", "4294967296", ""])
def test_wrong_labels_are_named(tmp_path, label):
    path = solution(tmp_path, f"a,1 1,3,2,{label}", header="ImageId,EncodedPixels,Height,Width,Label")
    refused("solution.csv, line 2, Label: ", read, path)


def test_masks_have_the_layout_of_the_data_set(tmp_path):
    kaggle.write(tmp_path / "masks", LABELS)
    files = sorted((tmp_path / "masks").iterdir())
    assert [file.name for file in files] == [f"{number:05}.png" for number in np.unique(LABELS)[1:]]
    for file in files:
        mask = kaggle.png.decode(file.read_bytes(), "x")
        assert mask.dtype == np.uint8 and np.array_equal(mask, (int(file.stem) == LABELS) * 255)


def folder_of(tmp_path, **masks):
    (tmp_path / "cell/masks").mkdir(parents=True)
    for name, mask in masks.items():
        (tmp_path / f"cell/masks/{name}.png").write_bytes(mask if isinstance(mask, bytes) else png(mask))
    return tmp_path / "cell"


def test_masks_with_any_names_are_numbered_in_their_order(tmp_path):
    folder = folder_of(tmp_path, c=[[0, 128, 255]], a=[[255, 127, 0]], b=[[255, 255, 0]])
    assert kaggle.read_masks(folder).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("masks", "match"),
    [
        ({}, "no masks"),
        ({"a": [[255]], "b": [[255, 0]]}, "b.png: .* pixels, but a.png has"),
        ({"a": b"GIF89a"}, "a.png: not a PNG"),
        ({"0": [[255]]}, "0.png: 0 is the background"),
    ],
)
def test_wrong_masks_are_named(tmp_path, masks, match):
    refused(match, kaggle.read_masks, folder_of(tmp_path, **masks))
