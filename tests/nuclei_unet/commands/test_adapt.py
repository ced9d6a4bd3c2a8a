"""The command `nuclei-unet adapt` on synthetic images."""

import os
import re
import sys
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import tifffile

from nuclei_unet.adaptation import calibrate
from nuclei_unet.commands import adapt
from nuclei_unet.formats import geojson, kaggle
from nuclei_unet.formats.label_tiff import write_labels
from nuclei_unet.prediction import models
from tests import cli
from tests.nuclei_unet.adaptation.adapting import image, random_labels, wide_annotator
from tests.refusals import refused


def requested(*arguments):
    """Return what the command is asked for, with the number of threads that all tests share."""
    return cli.asked(adapt, "--threads", 2, *arguments)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Return a folder with three images, their labels drawn 1 px wider than the model's, and random labels."""
    folder = tmp_path_factory.mktemp("lab")
    draw, _ = wide_annotator()
    (folder / "images").mkdir()
    for number in range(3):
        pixels, _ = image(number)
        cv2.imwrite(str(folder / f"images/{number}.png"), pixels)
        write_labels(folder / f"labels/{number}_labels.tif", draw(pixels))
        write_labels(folder / f"random/{number}.tif", random_labels(50 + number))
    return folder


def run(lab, out, *more, labels="labels"):
    return adapt.run(requested(lab / "images", lab / labels, "--out", out, "--calibrate-only", *more))


def test_what_helps_is_written_and_said(lab, tmp_path, capsys):
    out = tmp_path / "new/my-lab.onnx"
    write_labels(lab / "labels/other.tif", np.ones((9, 9), np.uint16))
    cv2.imwrite(str(lab / "images/none.png"), image(7)[0])
    try:
        run(lab, out)
    finally:
        (lab / "labels/other.tif").unlink()
        (lab / "images/none.png").unlink()
    said, warned = capsys.readouterr()
    assert "warning: no labels for 1 image: none\n" in warned
    assert "warning: no image for 1 label image: other\n" in warned
    head, rest = said.split("\n\n", 1)
    assert head.startswith("3 images, ") and head.endswith("scored on images that it was not adapted to:")
    rows = {line.rsplit(maxsplit=3)[0]: line.split()[-3:] for line in rest.split("\n\n")[0].splitlines()[1:]}
    assert list(rows) == ["baseline", "offset only"]
    metadata = models.describe(out)[0]
    offset = metadata.predict.outline_offset
    assert f"Chosen: offset only (outline_offset 0 -> {offset:g}).\n" in said and offset == pytest.approx(1.4, abs=0.4)
    before, after = metadata.adapted.before, metadata.adapted.after
    assert f"It helped by {after - before:+.3f}: {before:.3f} -> {after:.3f} on images that it was not adapted" in said
    assert rows["baseline"][0] == f"{before:.3f}" and rows["offset only"][0] == f"{after:.3f}"
    assert list(out.parent.iterdir()) == [out]

    refused(r"my-lab.onnx: exists; --overwrite replaces it", run, lab, out)
    first = out.read_bytes()
    run(lab, out, "--overwrite")
    assert out.read_bytes() == first


def test_what_does_not_help_is_not_written(lab, tmp_path, capsys):
    run(lab, tmp_path / "a.onnx", labels="random")
    said = capsys.readouterr().out
    assert "It did not help: 0." in said and "Nothing was written. Go on with" in said and "pretrained model." in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["geojson", "kaggle", "beside"])
def test_labels_may_have_any_format_that_convert_reads(lab, tmp_path, form):
    truth = {n: cv2.imread(str(lab / f"labels/{n}_labels.tif"), cv2.IMREAD_UNCHANGED) for n in range(3)}
    folder, images = tmp_path / "labels", lab / "images"
    for number, labels in truth.items():
        if form == "geojson":
            geojson.write(folder / f"{number}.geojson", labels)
        elif form == "kaggle":
            kaggle.write(folder / str(number) / "masks", labels)
        else:
            images = folder
            write_labels(folder / f"{number}_labels.tif", labels)
            cv2.imwrite(str(folder / f"{number}.png"), image(number)[0])
    pairs = adapt.find(requested(images, folder, "--out", "a.onnx"))
    assert [pair.name for pair in pairs] == ["0", "1", "2"] and len({pair.frame for pair in pairs}) == 3
    for number, pair in enumerate(pairs):
        pixels = pair.read()
        np.testing.assert_array_equal(pixels, image(number)[0])
        assert (pair.labels(pixels.shape) > 0).sum() == (truth[number] > 0).sum()


def test_frames_by_name(lab):
    find = [lab / "images", lab / "labels", "--out", "a.onnx", "--frames"]
    assert [pair.frame for pair in adapt.find(requested(*find, "[01]?"))][:2] != ["", ""]
    assert len({pair.frame for pair in adapt.find(requested(*find, "()[01]"))}) == 2


def test_what_cannot_be_adapted_is_said_in_one_line(lab, tmp_path, monkeypatch):
    def fault(images, labels, out, *more):
        return refused(None, adapt.run, requested(images, labels, "--out", out, *more))

    images, labels, out = lab / "images", lab / "labels", tmp_path / "a.onnx"
    assert "give it a name that ends in .onnx" in fault(images, labels, tmp_path / "a.keras")
    write_labels(tmp_path / "x/9.tif", np.ones((9, 9), np.uint16))
    assert "have no name in common: they hold, for example, 0 and 9" in fault(images, tmp_path / "x", out)
    mask = np.zeros((96, 112), np.uint16)
    mask[::8, ::8] = 255
    write_labels(tmp_path / "m/0.tif", mask)
    assert "a mask," in fault(images, tmp_path / "m", out)
    monkeypatch.setattr("nuclei_unet.adaptation.find_spec", lambda name: None)
    assert re.search(r"needs TensorFlow.*; pip install 'nuclei-unet\[train\]'", fault(images, labels, out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--frames", "(", "'(' is no regular expression"), ("--seed", "-1", "'-1' is no whole number"),
     ("--from", "czi", "invalid choice: 'czi'")],
)  # fmt: skip
def test_what_is_no_value_is_said(option, value, said, capsys):
    with pytest.raises(SystemExit):
        requested("images", "labels", "--out", "a.onnx", f"{option}={value}")
    assert said in capsys.readouterr().err


def test_axes_and_the_format_of_labels_can_be_said(lab, tmp_path):
    for number in range(2):
        tifffile.imwrite(tmp_path / f"images-{number}.tif", np.stack([image(number)[0]] * 3))
        geojson.write(tmp_path / f"labels/images-{number}_z0.json", image(number)[1])
    paths = [tmp_path / "images-*.tif", tmp_path / "labels", "--out", "a.onnx", "--from", "geojson"]
    refused("axes", adapt.find, requested(*paths))
    pairs = adapt.find(requested(*paths, "--axes", "ZYX"))
    assert [pair.name for pair in pairs] == ["images-0_z0", "images-1_z0"]
    assert pairs[0].read().shape == (96, 112) and pairs[0].labels((96, 112)).max() == 7


def test_an_interrupted_run_leaves_nothing_behind(lab, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(calibrate, "calibrate", Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr(os, "_exit", sys.exit)
    code = cli.call("adapt", lab / "images", lab / "labels", "--out", tmp_path / "a.onnx", "--threads", 2)
    assert code == 130 and capsys.readouterr().err.splitlines()[-1] == "interrupted"
    assert not list(tmp_path.iterdir())
