"""`nuclei-unet predict`, with the model that ships, on synthetic images in the formats of users."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from benchmarks.fault_injection.project import wait_for
from nuclei_unet import measurements
from nuclei_unet.batch import files
from nuclei_unet.evaluation import metrics
from nuclei_unet.formats import label_tiff
from nuclei_unet.formats.label_tiff import read_labels
from pipeline.dataset import synthetic
from tests import ROOT, cli

OUTPUTS = {"measurements.csv", "run.json", "summary.html"}
ALL_FORMATS = "geojson,rois,overlay,ome-zarr,coco,rle,parquet"
call = partial(cli.call, "predict", "--fast")
start = partial(cli.start, "-m", "nuclei_unet", "predict")


@pytest.fixture(scope="module")
def synthetic_image():
    """Return a fluorescent image, uint8 (H, W), and its label image."""
    *_, (_, image, labels) = synthetic.held_out_images(2, 2018)
    return np.ascontiguousarray(image[..., 0]), labels


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


def write_png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def images(tmp_path, synthetic_image):
    """Return a folder of images of different types."""
    image, _ = synthetic_image
    folder = tmp_path / "images"
    write_png(folder / "a.png", image)
    tifffile.imwrite(folder / "a.tif", image.astype(np.uint16) * 200, photometric="minisblack")
    channels = np.stack([image // 4, image, image // 2]).astype(np.uint16) * 100
    (folder / "plate 1").mkdir()
    about = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI", "Cy5"]}}
    about |= {f"PhysicalSize{axis}": 0.65 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    tifffile.imwrite(folder / "plate 1/b.ome.tif", channels, ome=True, photometric="minisblack", metadata=about)
    return folder


def test_a_folder_of_all_types(images, tmp_path, synthetic_image, capsys):
    _, truth = synthetic_image
    out = tmp_path / "results"
    assert "3 images" in cli.output(capsys, call, images, out, "--write", ALL_FORMATS)
    names = ["a.png", "a.tif", "plate 1/b"]
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    for name in names:
        assert {f"{name}{end}" for end in ("_labels.tif", ".geojson", "_rois.zip", "_overlay.png")} <= found
        assert (out / f"{name}.ome.zarr").is_dir()
    assert OUTPUTS | {"coco.json", "nuclei_rle.csv", "measurements.parquet"} <= found
    assert not [name for name in found if "partial" in name]

    labels = {name: read_labels(out / f"{name}_labels.tif") for name in names}
    # The brightness of an image decides nothing.
    assert (labels["a.png"] == labels["a.tif"]).all()
    assert metrics.dsb_score(metrics.instance_counts(truth, labels["a.png"])) > 0.4
    record = {item["name"]: item for item in run_json(out)["images"]}
    assert list(record) == names
    assert record["plate 1/b"]["channel"] == "DAPI" and record["plate 1/b"]["axes"] == "CYX"
    assert record["plate 1/b"]["pixel_size"] == 0.65 and record["plate 1/b"]["pixel_size_from"] == "OME metadata"
    assert record["a.png"]["pixel_size"] is None
    table = pd.read_csv(out / "measurements.csv")
    assert table.groupby("image").size().to_dict() == {name: int(labels[name].max()) for name in names}
    one = table[table.image == "plate 1/b"]
    assert np.allclose(one["area_um2"], one["area"] * 0.65**2)
    assert one["intensity_mean-DAPI"].notna().all() and table[table.image == "a.png"]["area_um2"].isna().all()
    assert pd.read_parquet(out / "measurements.parquet")["image"].tolist() == table["image"].tolist()
    assert run_json(out)["computed_by"].startswith("ONNX Runtime ")
    page = (out / "summary.html").read_text()
    assert page.count("data:image/") >= 3 and "plate 1/b" in page


def test_a_second_start_does_only_what_is_missing(images, tmp_path, capsys):
    out = tmp_path / "results"
    assert call(images, out) == 0
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*_labels.tif")}
    table = (out / "measurements.csv").read_bytes()
    (out / "a.png_labels.tif").unlink()
    assert "2 were done before" in cli.output(capsys, call, images, out)
    again = {path for path in first if path.stat().st_mtime_ns != first[path]}
    assert {path.name for path in again} == {"a.png_labels.tif"}
    assert (out / "measurements.csv").read_bytes() == table
    # Other settings, another image: what they change is done again.
    write_png(images / "a.png", np.zeros((30, 30), np.uint8))
    assert "2 were done before" in cli.output(capsys, call, images, out)
    for options in (("--overwrite",), ("--diameter", "30")):
        assert "done before" not in cli.output(capsys, call, images, out, *options)


def test_broken_files_are_named_and_the_others_done(images, tmp_path, capsys, synthetic_image):
    (images / "broken.png").write_bytes((images / "a.png").read_bytes()[:500])
    (images / "empty.tif").write_bytes(b"")
    tifffile.imwrite(images / "nan.tif", np.full((40, 40), np.nan, np.float32))
    tifffile.imwrite(images / "stack.tif", np.zeros((5, 40, 40), np.uint8), photometric="minisblack", metadata=None)
    out = tmp_path / "results"
    assert call(images, out) == 1
    said = capsys.readouterr()
    assert "3 images" in said.out
    errors = [line for line in said.err.splitlines() if line.startswith("failed: ")]
    assert len(errors) == 4 and "4 of 7 failed" in said.err
    for name, reason in (("broken.png", "cut short"), ("empty.tif", "empty"), ("nan.tif", "NaN"),
                         ("stack.tif", "ZYX")):  # fmt: skip
        assert any(name in line and reason in line for line in errors), (name, errors)
    assert "Traceback" not in said.err
    assert sum(item["error"] is not None for item in run_json(out)["images"]) == 4
    assert "cut short" in (out / "summary.html").read_text()
    # A broken file that was mended is done at the next start.
    write_png(images / "broken.png", synthetic_image[0])
    for name in ("empty.tif", "nan.tif", "stack.tif"):
        (images / name).unlink()
    assert call(images, out) == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 500)], ids=["one pixel", "a strip"])
def test_images_without_nuclei(shape, tmp_path):
    write_png(tmp_path / "in/x.png", np.zeros(shape, np.uint8))
    out = tmp_path / "results"
    assert call(tmp_path / "in", out, "--write", ALL_FORMATS) == 0
    assert read_labels(out / "x_labels.tif").shape == shape
    (item,) = run_json(out)["images"]
    assert item["count"] == 0 and any("No nuclei" in warning for warning in item["warnings"])
    assert pd.read_csv(out / "measurements.csv").empty


def test_planes_and_projections(tmp_path, synthetic_image, capsys):
    image = synthetic_image[0][:128, :128]
    stack = np.stack([image // 3, image, image // 2])
    tifffile.imwrite(tmp_path / "s.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    said = cli.output(capsys, call, tmp_path / "s.tif", tmp_path / "each")
    assert "3 images" in said and "each plane of a stack" in said
    names = ["s_z0", "s_z1", "s_z2"]
    assert sorted(path.name for path in (tmp_path / "each").glob("*.tif")) == [f"{n}_labels.tif" for n in names]
    said = cli.output(capsys, call, tmp_path / "s.tif", tmp_path / "one", "--project", "max")
    assert "projected to one image: max" in said
    assert (read_labels(tmp_path / "one/s_labels.tif") == read_labels(tmp_path / "each/s_z1_labels.tif")).all()


def test_the_diameter_is_estimated_or_given(tmp_path):
    _, image, truth = next(synthetic.held_out_images(1, 2018))
    tifffile.imwrite(tmp_path / "l.tif", cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC))
    truth = np.kron(truth, np.ones((3, 3), np.uint16))
    found, used = {}, {}
    for name, options in (("estimated", ()), ("the user", ("--diameter", "12"))):
        assert call(tmp_path / "l.tif", tmp_path / name, *options) == 0
        (item,) = run_json(tmp_path / name)["images"]
        assert item["diameter_from"] == name
        used[name] = item["diameter"]
        found[name] = metrics.dsb_score(metrics.instance_counts(truth, read_labels(tmp_path / name / "l_labels.tif")))
    assert used == {"estimated": pytest.approx(np.median(measurements.diameters(truth)), rel=0.3), "the user": 12}
    assert found["estimated"] > found["the user"] + 0.1


def test_several_processes_give_the_same_files(images, tmp_path):
    for jobs in (1, 2):
        assert call(images, tmp_path / f"{jobs}", "--write", "geojson,rois,coco", "--jobs", jobs) == 0
    assert cli.results(tmp_path / "1") == cli.results(tmp_path / "2")


def labels_in(folder):
    return list(folder.glob("[0-9]*_labels.tif"))


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_at_once_and_a_second_start_goes_on(jobs, tmp_path, synthetic_image):
    for number in range(40):
        write_png(tmp_path / f"in/{number:02}.png", synthetic_image[0])
    out = tmp_path / "results"
    process = start(tmp_path / "in", out, "--jobs", jobs)
    wait_for(lambda: len(labels_in(out)) >= 2, process)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - before < 5
    assert process.returncode == 130
    assert "interrupted" in said and "Traceback" not in said
    assert not [path for path in out.rglob("*") if "partial" in path.name]
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*_labels.tif")}
    assert 2 <= len(done) < 40
    for path in sorted((tmp_path / "in").iterdir())[len(done) + 3 :]:
        path.unlink()
    assert start(tmp_path / "in", out, "--jobs", jobs).wait(120) == 0
    kept = [name for name, at in done.items() if (out / name).stat().st_mtime_ns == at]
    assert len(kept) >= len(done) - jobs
    assert not run_json(out)["images"][0]["error"]


@pytest.mark.slow
def test_kill_9_leaves_nothing_that_the_next_run_takes_for_a_result(tmp_path, synthetic_image):
    for number in range(6):
        write_png(tmp_path / f"in/{number}.png", synthetic_image[0])
    out = tmp_path / "results"
    process = start("--fast", tmp_path / "in", out)
    wait_for(lambda: labels_in(out), process)
    process.kill()
    process.communicate()
    assert call(tmp_path / "in", out) == 0
    assert len(list(out.glob("*_labels.tif"))) == 6 and len(run_json(out)["images"]) == 6


@pytest.mark.slow
def test_two_runs_on_one_folder(tmp_path, synthetic_image):
    for number in range(20):
        write_png(tmp_path / f"in/{number}.png", synthetic_image[0])
    out = tmp_path / "results"
    first = start(tmp_path / "in", out)
    wait_for((out / ".nuclei-unet/lock").exists, first)
    time.sleep(0.3)
    second = start(tmp_path / "in", out)
    _, said = second.communicate(timeout=60)
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert second.returncode == 1 and "another run is writing there" in said and "Traceback" not in said


def test_one_bad_plane_does_not_stop_the_others(tmp_path, synthetic_image, capsys):
    image = synthetic_image[0][:96, :96].astype(np.float32)
    tifffile.imwrite(tmp_path / "s.tif", np.stack([image, image * np.nan]), imagej=True, metadata={"axes": "TYX"})
    assert call(tmp_path / "s.tif", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").glob("*.tif")] == ["s_t0_labels.tif"]
    assert "1 of 2 failed" in capsys.readouterr().err


def test_what_cannot_be_started_is_refused_in_one_line(tmp_path, synthetic_image, capsys):
    write_png(tmp_path / "in/x.png", synthetic_image[0])
    (tmp_path / "none").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    for images, out, options, said in (
        ("none", "out", (), "no image"),
        ("nowhere", "out", (), "no such file or folder"),
        ("notes.txt", "out", (), "notes.txt"),
        *(("in", out, (), "folder of images") for out in ("in/results", "in")),
        ("in", "notes.txt", (), "is a file"),
        ("in", "out", ("--write", "svg"), "not a format"),
        ("in", "out", ("--model", tmp_path / "m.onnx"), "no such model"),
        ("in", "out", ("--model", "s3://a/b"), "nothing that is installed knows"),
    ):
        assert said in cli.error(capsys, call, tmp_path / images, tmp_path / out, *options)
    assert not (tmp_path / "out").exists() and not (tmp_path / "in/results").exists()


def test_no_input_and_no_foreign_file_is_overwritten(tmp_path, synthetic_image, capsys):
    write_png(tmp_path / "x.png", synthetic_image[0])
    tifffile.imwrite(tmp_path / "x_labels.tif", synthetic_image[0])
    before = (tmp_path / "x_labels.tif").read_bytes()
    line = cli.error(capsys, call, tmp_path / "x.png", tmp_path / "x_labels.tif", tmp_path)
    assert "x_labels.tif: is an input" in line
    assert "is not from nuclei-unet" in cli.error(capsys, call, tmp_path / "x.png", tmp_path)
    assert (tmp_path / "x_labels.tif").read_bytes() == before


def test_a_full_disk_stops_the_run_with_one_line(tmp_path, synthetic_image, capsys, monkeypatch):
    for number in range(3):
        write_png(tmp_path / f"in/{number}.png", synthetic_image[0])

    def full(path, labels, pixel_size=None):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(label_tiff, "write_labels", full)
    line = cli.error(capsys, call, tmp_path / "in", tmp_path / "out")
    assert "No space left on device" in line and "0_labels.tif" in line


def test_names_never_collide():
    paths = [(Path(p), Path(r)) for p, r in
             [("i/a.png", "a.png"), ("i/A.tif", "A.tif"), ("i/b.png", "b.png"), ("i/s/a.png", "s/a.png"),
              ("j/b.tif", "x/b.png"), ("k/b.tif", "x/B.png")]]  # fmt: skip
    names = [task.name for task in files.named(paths)]
    assert names[:4] == ["a.png", "A.tif", "b", "s/a"]
    assert len({name.casefold() for name in names}) == len(names)


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac's file names are UTF-8")
def test_a_folder_name_that_is_not_text_is_printed_somehow(tmp_path, synthetic_image):
    images, out = (tmp_path / os.fsdecode(name) for name in (b"\xff in", b"\xff out"))
    images.mkdir()
    # OpenCV itself crashes at such a name.
    (images / "a.png").write_bytes(cv2.imencode(".png", synthetic_image[0])[1])
    command = [sys.executable, "-m", "nuclei_unet", "predict", "--fast", str(images), str(out)]
    variables = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert not done.returncode and r"\udcff out" in done.stdout, done.stderr
    assert {path.name for path in out.iterdir()} >= OUTPUTS
