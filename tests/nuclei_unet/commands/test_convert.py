"""nuclei-unet convert: every format into every other, and what it refuses."""

import json
import re

import numpy as np
import pytest
import tifffile

from nuclei_unet.commands import convert
from nuclei_unet.formats import coco, geojson, kaggle, label_tiff, rois
from nuclei_unet.formats.reading import Images
from nuclei_unet.formats.registry import FORMATS, READ
from tests import cli
from tests.images import png
from tests.nuclei_unet.formats.label_images import LABELS, same
from tests.refusals import refused

TARGETS = {name: f"to-{name}" for name in READ} | {"rle": "to.csv", "coco": "to.json"}
# Every size is that of the image only if a nucleus touches its lower right corner.
CORNER = np.pad(LABELS, ((0, 0), (0, 1)))
CORNER[-1, -1] = 9


def run(*arguments):
    return convert.main(cli.asked(convert, *arguments))


def make(folder, **images):
    for name, labels in images.items():
        label_tiff.write_labels(folder / f"{name}_labels.tif", labels)
    return folder


def read(folder):
    found = {}
    for path in sorted(folder.rglob("*_labels.tif")):
        found[str(path.relative_to(folder)).removesuffix("_labels.tif")] = label_tiff.read_labels(path)
    return found


@pytest.mark.parametrize(("first", "second"), zip(READ, (*READ[1:], READ[0]), strict=True))
def test_every_format_into_every_other(tmp_path, first, second):
    images = {"a": CORNER, "plate/b 2": CORNER[:, ::-1] % 60_000}
    make(tmp_path / "in", **images)
    sizes = ["--images", tmp_path / "images"]
    for name, labels in images.items():
        path = tmp_path / "images" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, labels.astype(np.uint16))
    assert run(tmp_path / "in", tmp_path / "1" / TARGETS[first], "--to", first) == 0
    assert run(tmp_path / "1" / TARGETS[first], tmp_path / "2" / TARGETS[second], "--to", second, *sizes) == 0
    assert run(tmp_path / "2" / TARGETS[second], tmp_path / "out", "--to", "tiff", "--from", second, *sizes) == 0
    found = read(tmp_path / "out")
    assert list(found) == list(images)
    assert all(same(found[name], labels) for name, labels in images.items())
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_the_format_is_told_from_the_files(tmp_path):
    make(tmp_path / "in", a=CORNER)
    for to, target in TARGETS.items():
        assert run(tmp_path / "in", tmp_path / target, "--to", to) == 0
    single = [
        *("to-tiff/a_labels.tif", "to-kaggle/a", "to-geojson/a.geojson", "to-rois/a_rois.zip"),
        *("to-ome-zarr/a.ome.zarr", "to.csv", "to.json"),
    ]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.json").write_bytes((tmp_path / "to-geojson/a.geojson").read_bytes())
    for number, source in enumerate([*TARGETS.values(), *single, "other/a.json"]):
        assert run(tmp_path / source, tmp_path / str(number), "--to", "tiff") == 0
        assert same(read(tmp_path / str(number))["a"], CORNER)


@pytest.mark.parametrize("to", ["tiff", "ome-zarr"])
@pytest.mark.parametrize("labels", [CORNER, CORNER % 60_000])
def test_a_pixel_size_is_kept(tmp_path, to, labels):
    label_tiff.write_labels(tmp_path / "in/a.tif", labels, 0.25)
    assert run(tmp_path / "in", tmp_path / "1", "--to", to) == 0
    assert run(tmp_path / "1", tmp_path / "2", "--to", "ome-zarr") == 0
    about = json.loads((tmp_path / "2/a.ome.zarr/.zattrs").read_text())
    scale = about["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale == pytest.approx([0.25, 0.25])
    assert run(tmp_path / "in", tmp_path / "3", "--to", "ome-zarr", "--pixel-size", "0.5") == 0
    assert "0.5" in (tmp_path / "3/a.ome.zarr/.zattrs").read_text()


def test_coco_keeps_the_names_of_image_files(tmp_path):
    coco.write(tmp_path / "in.json", [("a.png", LABELS), ("x/b.TIF", LABELS), ("c", LABELS)])
    assert run(tmp_path / "in.json", tmp_path / "out.json", "--to", "coco") == 0
    assert sorted(coco.read(tmp_path / "out.json")) == ["a.png", "c", "x/b.TIF"]
    assert run(tmp_path / "in.json", tmp_path / "tiff", "--to", "tiff") == 0
    assert list(read(tmp_path / "tiff")) == ["a", "c", "x/b"]
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(png(LABELS % 9))
    assert run(tmp_path / "tiff", tmp_path / "named.json", "--to", "coco", "--images", tmp_path / "images") == 0
    assert list(coco.read(tmp_path / "named.json")) == ["a.png", "c", "x/b"]


def test_a_size_that_is_not_known(tmp_path, capsys):
    geojson.write(tmp_path / "in/a.geojson", LABELS * (LABELS < 9))
    assert run(tmp_path / "in", tmp_path / "1", "--to", "tiff") == 0
    assert "note: the size of 1 images is not known (first: a)" in capsys.readouterr().err
    assert read(tmp_path / "1")["a"].shape == (7, 7)
    assert run(tmp_path / "in", tmp_path / "2", "--to", "tiff", "--shape", "20x30") == 0
    assert "note" not in capsys.readouterr().err
    assert read(tmp_path / "2")["a"].shape == (20, 30)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/b.png").write_bytes(png(LABELS % 9))
    assert run(tmp_path / "in", tmp_path / "3", "--to", "tiff", "--images", tmp_path / "images") == 1
    assert "error: a: no image of that name" in capsys.readouterr().err


def test_bad_images_are_named_and_the_others_converted(tmp_path, capsys):
    make(tmp_path / "in", good=LABELS, fine=LABELS)
    (tmp_path / "in/cut_labels.tif").write_bytes((tmp_path / "in/good_labels.tif").read_bytes()[:150])
    tifffile.imwrite(tmp_path / "in/rgb.tif", np.zeros((4, 5, 3), np.uint8))
    for to in ("coco", "geojson"):
        assert run(tmp_path / "in", tmp_path / TARGETS[to], "--to", to) == 1
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert len(lines) == 2 and out == f"2 of 4 images are in {tmp_path / TARGETS[to]}\n"
        assert re.match("error: .*in/cut_labels.tif: ", lines[0])
        assert re.match("error: .*in/rgb.tif: not a label image", lines[1])
    assert list(coco.read(tmp_path / "to.json")) == ["fine", "good"]
    assert sorted(path.name for path in (tmp_path / "to-geojson").iterdir()) == ["fine.geojson", "good.geojson"]


@pytest.mark.parametrize("to", READ)
def test_no_file_if_nothing_can_be_read(tmp_path, to, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_bytes(b"II*\0")
    assert run(tmp_path / "in", tmp_path / TARGETS[to], "--to", to) == 1
    assert capsys.readouterr().out.startswith("0 of 1 images")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_exists_is_not_overwritten(tmp_path):
    make(tmp_path / "in", a=LABELS, b=LABELS)
    for to, target in TARGETS.items():
        target = tmp_path / target
        assert run(tmp_path / "in", target, "--to", to) == 0
        # Another file beside it is no obstacle and stays.
        if not FORMATS[to].together:
            (target / "note.txt").write_text("mine")
        refused("exists.*--overwrite", run, tmp_path / "in", target, "--to", to)
        assert run(tmp_path / "in", target, "--to", to, "--overwrite") == 0
        assert FORMATS[to].together or (target / "note.txt").read_text() == "mine"
    # Masks are replaced, but not the image beside them.
    kaggle.write(tmp_path / "out/a/masks", LABELS)
    (tmp_path / "out/a/images").mkdir()
    (tmp_path / "out/a/images/a.png").write_bytes(png(LABELS % 9))
    make(tmp_path / "corner", a=CORNER)
    assert run(tmp_path / "corner", tmp_path / "out", "--to", "kaggle", "--overwrite") == 0
    assert same(kaggle.read_masks(tmp_path / "out/a"), CORNER)
    assert (tmp_path / "out/a/images/a.png").exists()


def test_the_source_is_never_overwritten(tmp_path):
    make(tmp_path / "in", a=LABELS)
    for to, target in TARGETS.items():
        assert run(tmp_path / "in", tmp_path / target, "--to", to) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    itself = [(target, target, to) for to, target in TARGETS.items()]
    inside = [("to-kaggle/a", "to-kaggle", "kaggle"), ("to-ome-zarr/a.ome.zarr", "to-ome-zarr", "ome-zarr")]
    inside += [("to-tiff/a_labels.tif", "to-tiff", "tiff"), ("to.json", "to.json", "rle")]
    for source, target, to in itself + inside:
        arguments = (tmp_path / source, tmp_path / target, "--to", to, "--overwrite")
        refused("would be written into what is converted", run, *arguments)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    # Another format may lie beside the source.
    assert run(tmp_path / "in", tmp_path / "in", "--to", "rois") == 0
    assert same(rois.read(tmp_path / "in/a_rois.zip"), LABELS)


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", "a//b", ".", "a\\b", "c:a", "a\nb", "a\0b", ""])
def test_names_cannot_leave_the_target(tmp_path, name, capsys):
    coco.write(tmp_path / "in.json", [(name, LABELS), ("good", LABELS)])
    assert run(tmp_path / "in.json", tmp_path / "x/out", "--to", "tiff") == 1
    assert capsys.readouterr().err == f"error: image {name!r}: cannot be the name of a file; rename it\n"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(files) == [tmp_path / "in.json", tmp_path / "x/out/good_labels.tif"]
    # Nor may they differ in case alone.
    coco.write(tmp_path / "in.json", [("A", LABELS), ("a", LABELS)])
    assert run(tmp_path / "in.json", tmp_path / "case", "--to", "tiff") == 1
    assert "image 'a': differs from 'A' only in case" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "arguments", "match"),
    [
        *(("absent", ["--to", "tiff", *more], "no such file or folder") for more in ([], ["--from", "coco"])),
        ("empty", ["--to", "tiff"], "no files of a format"),
        ("empty", ["--to", "tiff", "--from", "geojson"], "no label images of the format geojson"),
        ("mixed", ["--to", "tiff"], r"several formats \(tiff, geojson\); say which"),
        ("note.txt", ["--to", "tiff"], "say which"),
        ("note.txt", ["--to", "tiff", "--from", "coco"], "note.txt: not JSON"),
        ("note.txt", ["--to", "tiff", "--from", "rle"], "note.txt: column ImageId.* is missing"),
        ("empty", ["--to", "tiff", "--from", "rle"], "not a CSV table"),
        ("in", ["--to", "coco", "--shape", "3x4"], "--shape: .* leave --shape out"),
        ("in", ["--to", "coco", "--images", "absent"], "no such file or folder"),
    ],
)
def test_what_cannot_be_converted(here, source, arguments, match):
    make(here / "in", a=LABELS)
    label_tiff.write_labels(here / "mixed/a.tif", LABELS)
    geojson.write(here / "mixed/a.geojson", LABELS)
    (here / "empty").mkdir()
    (here / "note.txt").write_text("hello")
    refused(match, run, source, "out", *arguments)
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    "option", ["--shape=0x5", "--shape=5", "--shape=axb", "--pixel-size=0", "--pixel-size=nan", "--pixel-size=abc"]
)
def test_options_that_make_no_sense(tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, tmp_path, "--to", "tiff", option)
    name, value = option.split("=")
    err = capsys.readouterr().err
    assert f"argument {name}: '{value}' is no" in err and "invalid" not in err


def test_an_ome_tiff_is_found_by_the_name_that_its_results_have(tmp_path):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/a.ome.tif", np.zeros((30, 40), np.uint8), ome=True)
    images = Images(tmp_path / "images")
    for name in ("a", "a.ome", "a.ome.tif"):
        assert images.title(name) == "a.ome.tif" and images.shape(name) == (30, 40)
