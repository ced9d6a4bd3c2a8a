"""The command `nuclei-unet score` on folders of tiny label images."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from nuclei_unet.commands import score
from nuclei_unet.evaluation import scores
from nuclei_unet.formats.label_tiff import write_labels
from nuclei_unet.formats.registry import FORMATS, READ
from tests import cli
from tests.refusals import refused

TWO = np.repeat(np.repeat([[1, 1, 0, 2, 2]], 4, axis=0), 4, axis=1).astype(np.uint16)  # 4 x 20, 32 pixels each
MERGED = np.repeat(np.repeat([[1, 1, 1, 1, 1]], 4, axis=0), 4, axis=1).astype(np.uint16)
EMPTY = np.zeros((4, 20), np.uint16)


def run(*arguments):
    return score.main(cli.asked(score, *arguments))


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Return predictions and truth of three images: perfect, merged, and without nuclei."""
    labels, truth = tmp_path / "labels", tmp_path / "truth"
    for name, predicted, true in (("perfect", TWO * 9, TWO), ("sub/merged", MERGED, TWO), ("empty", EMPTY, EMPTY)):
        write_labels(labels / f"{name}_labels.tif", predicted)
        write_labels(truth / f"{name}.tif", true)
    return labels, truth


def test_all_scores_are_printed_with_the_worst_images(folders, capsys):
    assert run(*folders) == 0
    out, err = capsys.readouterr()
    assert out.startswith("3 images, 4 nuclei, 3 predicted\n") and "error" not in err
    assert all(f"\n{one.name} " in out for one in scores.SCORES if one.over not in ("low", "high"))
    (line,) = (line for line in out.splitlines() if line.startswith("DSB score"))
    assert line.split()[2:4] == ["0.667", "0.000-1.000"]
    assert "2 correct, 0 missed, 0 split, 2 merged" in out and "2 correct, 0 false, 0 split, 1 merged" in out
    worst = out.split("worst images")[1].splitlines()[1:]
    assert [row.split()[0] for row in worst] == ["sub/merged", "empty", "perfect"]
    assert worst[0].split()[1:] == ["0.000", "2", "1", "0", "0", "0", "2", "0"]


def test_the_files_say_the_same_as_the_catalogue(folders, tmp_path):
    assert run(*folders, "--write", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out/scores.json").read_text())
    counts = [scores.count(true, predicted) for true, predicted in ((EMPTY, EMPTY), (TWO, TWO), (TWO, MERGED))]
    assert {group: found[group] for group in scores.GROUPS} == scores.of_images(counts)
    assert (found["n_images"], found["n_nuclei"], found["n_predicted_nuclei"]) == (3, 4, 3)
    table = pd.read_csv(tmp_path / "out/per_image.csv")
    assert table["image"].tolist() == ["empty", "perfect", "sub/merged"]
    assert table["dsb_score"].tolist() == [1, 1, 0] and table["height"].tolist() == [4] * 3
    # Each true and each predicted nucleus is counted once.
    assert (table[["correct", "missed", "split", "merged"]].sum(axis=1) == table["nuclei"]).all()
    predicted = table[["correct", "false", "predicted_split", "predicted_merged"]].sum(axis=1)
    assert (predicted == table["predicted_nuclei"]).all()
    assert found["outcomes"] == {name: int(table[name].sum()) for name in found["outcomes"]}
    assert found["outcomes"]["merged"] == 2 and found["outcomes"]["predicted_merged"] == 1


def test_each_image_that_cannot_be_scored_has_one_line_and_the_others_are_scored(folders, tmp_path, capsys):
    labels, truth = folders
    write_labels(truth / "lost.tif", TWO)
    write_labels(truth / "size.tif", TWO.T)
    for name in ("only", "size", "colour", "mask", "twice", "broken"):
        write_labels(labels / f"{name}.tif", TWO)
    tifffile.imwrite(truth / "colour.tif", np.zeros((4, 20, 3), np.uint8), photometric="rgb")
    write_labels(truth / "mask.tif", np.tile(np.array([255, 0], np.uint16), (4, 10)))
    for name in ("twice_mask.tif", "twice_labels.tif"):
        write_labels(truth / name, TWO)
    (truth / "broken.tif").write_bytes(b"II*")
    assert run(labels, truth, "--write", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    said = (
        *("broken.tif: not a TIFF", "colour.tif: not a label image", f"lost: no label image in {labels}"),
        *(f"mask in {truth}: a mask, 10 pieces have the number 255", f"only: no label image in {truth}"),
        *("size: 4 x 20 pixels, but the truth has 20 x 4", "twice: several label images"),
        "7 of 10 images are not in the scores",
    )
    assert all(words in line for line, words in zip(lines, said, strict=True))
    assert out.startswith("3 images,")
    rows = list(csv.DictReader((tmp_path / "out/per_image.csv").open()))
    assert [row["image"] for row in rows] == ["empty", "perfect", "sub/merged"]


def test_one_nucleus_is_no_mask_and_sets_need_a_common_name(tmp_path, capsys):
    pieces = EMPTY.copy()
    pieces[:, 1], pieces[:, 5] = 1, 1
    for folder in ("labels", "truth"):
        write_labels(tmp_path / folder / "a.tif", pieces)
    printed = cli.output(capsys, run, tmp_path / "labels", tmp_path / "truth")
    assert printed.startswith("1 images, 1 nuclei, 1 predicted")
    (tmp_path / "truth/a.tif").rename(tmp_path / "truth/b.tif")
    refused("no name in common: they hold, for example, a and b", run, tmp_path / "labels", tmp_path / "truth")


@pytest.mark.parametrize("to", READ)
@pytest.mark.parametrize("side", [0, 1])
def test_labels_and_truth_may_have_any_format(tmp_path, capsys, to, side):
    paths, names = [], ("tiff", to) if side else (to, "rle")
    for number, one in enumerate(FORMATS[name] for name in names):
        path = tmp_path / f"{number}{one.endings[0] if one.name == 'rle' else '.json' if one.together else ''}"
        if one.together:
            one.write_all(path, [("a.png", TWO), ("b.png", MERGED)])
        else:
            one.write(path, "a", TWO)
            one.write(path, "b", MERGED)
        paths.append(path)
    assert cli.output(capsys, run, *paths).startswith("2 images, 3 nuclei, 3 predicted\n")


def test_sizes_that_neither_side_says(tmp_path, capsys):
    for side in ("labels", "truth"):
        FORMATS["rois"].write(tmp_path / side, "a", TWO)
    assert run(tmp_path / "labels", tmp_path / "truth") == 1
    assert "a: neither file says how large the image is; give --images or --shape" in capsys.readouterr().err
    assert run(tmp_path / "labels", tmp_path / "truth", "--shape", "30x40") == 0
    write_labels(tmp_path / "images/a.tif", EMPTY)
    options = ["--images", tmp_path / "images", "--from", "rois", "--truth-from", "rois", "--write", tmp_path / "out"]
    assert run(tmp_path / "labels", tmp_path / "truth", *options) == 0
    assert pd.read_csv(tmp_path / "out/per_image.csv")[["height", "width"]].values.tolist() == [[4, 20]]
