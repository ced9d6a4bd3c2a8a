"""`nuclei-unet predict SLIDE.zarr OUT.zarr`: the same as in one piece, in small tiles, with the model that ships."""

import json
import signal
import time
from functools import partial

import cv2
import numpy as np
import pandas as pd
import pytest
import zarr

from benchmarks.fault_injection.project import wait_for
from nuclei_unet import Segmenter
from nuclei_unet.batch import slide
from nuclei_unet.files import tree_digest
from nuclei_unet.formats import parquet, zarr_labels
from nuclei_unet.formats.zarr_images import open_levels
from nuclei_unet.labels import components
from nuclei_unet.prediction import diameter, predictor
from pipeline.dataset import synthetic
from tests import cli

USUAL = 24  # px, of the nuclei that the pretrained model knows: the slide is not scaled
OPTIONS = ("predict", "--fast", "--diameter", str(USUAL))
SMALL = {"TILE": 192, "OVERLAP": 32}  # as `small_tiles`
pytestmark = pytest.mark.usefixtures("small_tiles")
call = partial(cli.call, *OPTIONS)


@pytest.fixture(scope="module")
def synthetic_image():
    """Return a fluorescent image of 16 tiles, uint8 (H, W): 2 x 2 synthetic ones, so nuclei lie on all seams."""
    image = next(image for _, image, _ in synthetic.held_out_images(6, 5) if image.shape[:2] == (256, 256))
    return np.tile(image[..., 0], (2, 2))[:420, :500].copy()


class AtUsualSize(Segmenter):
    def __call__(self, image):
        return super().__call__(image, diameter=USUAL)


@pytest.fixture(scope="module")
def segmenter():
    predict = Segmenter.load().metadata.predict.model_copy(update={"augmentations": predictor.FAST})
    return AtUsualSize.load(predict=predict)


def write_slide(path, array, chunks=(100, 130), *, pixel_size=None, levels=1, names=(), axes="cyx"):
    """Write an image as OME-Zarr, channels first."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    axes = axes[-array.ndim :]
    datasets = []
    for level in range(levels):
        values = np.ascontiguousarray(array[..., :: 2**level, :: 2**level])
        group.create_array(str(level), data=values, chunks=(1,) * (array.ndim - 2) + chunks)
        scale = [1.0] * (array.ndim - 2) + [(pixel_size or 1.0) * 2**level] * 2
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    unit = {"unit": "micrometer"} if pixel_size else {}
    kinds = {"c": {"type": "channel"}, "t": {"type": "time"}}
    described = [{"name": name, **kinds.get(name, {"type": "space", **unit})} for name in axes]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": described, "datasets": datasets}]
    if names:
        group.attrs["omero"] = {"channels": [{"label": name} for name in names]}
    return path


def start(*arguments):
    """Run the command with small tiles in a process of its own."""
    code = (
        "from nuclei_unet.commands.main import main\n"
        "from nuclei_unet.prediction import predictor\n"
        f"if __name__ == '__main__':\n    vars(predictor).update({SMALL})\n    main({[*OPTIONS, *map(str, arguments)]})"
    )
    return cli.start("-c", code)


def same_table(folder, table, name):
    found = pd.read_parquet(folder / "measurements.parquet")
    assert (found.pop("image") == name).all()
    pd.testing.assert_frame_equal(found, pd.DataFrame(table), check_dtype=False, rtol=1e-12)


def parts(folder):
    return list(folder.glob(".nuclei-unet/*/part-*.npz"))


def grey(image):
    return image, image, ()


def stained(image):
    rgb = np.stack([255 - image, 255 - image // 2, 255 - image // 3])
    return rgb, np.moveaxis(rgb, 0, -1), ()


def channels(image):
    stack = np.stack([image // 4, image, image // 2]).astype(np.uint16) * 100
    return stack, stack[1], ("GFP", "DAPI", "Cy5")


def real_numbers(image):
    values = image.astype(np.float32) / 300 - 0.1
    return values, values, ()


@pytest.mark.parametrize(
    ("image_type", "chunks"),
    [(grey, (100, 130)), (stained, (37, 500)), (channels, (420, 70)), (real_numbers, (64, 64))],
)
def test_the_result_is_that_of_the_whole_image(image_type, chunks, tmp_path, synthetic_image, segmenter, capsys):
    stored, image, names = image_type(synthetic_image)
    path, out = write_slide(tmp_path / "a.ome.zarr", stored, chunks, names=names, pixel_size=0.3), tmp_path / "out.zarr"
    printed = cli.output(capsys, call, path, out)
    want = segmenter(image)
    assert want.max() > 80 and len(segmenter.predictor.cut(image.shape[:2], 1.0)) == 16
    np.testing.assert_array_equal(zarr_labels.read(out), want)
    measured = stored if stored.ndim == 2 else np.moveaxis(stored, 0, -1)
    same_table(out, segmenter.measure(want, measured, pixel_size=0.3, channels=names), "a")
    assert printed.endswith(f"1 slide 420 x 500 (level 0, 0.3 um a pixel), {want.max()} nuclei in {out}\n")
    assert {entry.name for entry in out.iterdir()} == slide.OURS
    assert [entry.name for entry in (out / ".nuclei-unet").iterdir()] == ["lock"]
    record = json.loads((out / "run.json").read_text())
    assert record["nuclei"] == want.max() and record["computed_by"][0].startswith("ONNX Runtime ")
    group = zarr.open_group(out / "labels/nuclei", mode="r")
    assert group.attrs["image-label"]["source"]["image"] == "../../../a.ome.zarr"
    assert (out / "labels/nuclei" / group.attrs["image-label"]["source"]["image"]).resolve() == path


def test_a_sample_of_the_pixels_decides_as_in_the_whole_image(tmp_path, synthetic_image, segmenter, monkeypatch):
    monkeypatch.setattr("nuclei_unet.images.LARGEST_WHOLE", 15_000)  # every third row and column
    synthetic_image = synthetic_image + np.linspace(0, 90, 500).astype(np.uint8)  # tiles differ
    assert call(write_slide(tmp_path / "a.zarr", synthetic_image), tmp_path / "out.zarr") == 0
    np.testing.assert_array_equal(zarr_labels.read(tmp_path / "out.zarr"), segmenter(synthetic_image))


def test_the_diameter_is_estimated_as_in_the_whole_image(tmp_path, synthetic_image, segmenter, monkeypatch, capsys):
    monkeypatch.setattr(diameter, "SAMPLE", 50_000)  # in windows
    monkeypatch.setattr(diameter, "SIDE", 128)
    path, out = write_slide(tmp_path / "a.zarr", synthetic_image, pixel_size=0.3), tmp_path / "out.zarr"
    printed = cli.output(capsys, cli.call, *OPTIONS[:2], path, out)
    want, used = segmenter.find(synthetic_image, pixel_size=0.3)
    np.testing.assert_array_equal(zarr_labels.read(out), want)
    slide_facts = json.loads((out / "run.json").read_text())["slide"]
    assert (slide_facts["diameter"], slide_facts["diameter_from"]) == (used.px, "estimated") and used.px != USUAL
    assert f"typical nucleus: {used.px:g} px across (estimated)" in printed


def bright(self, image, scale, shape=None):
    """Take what is bright for nuclei: without the network, which would not find what is drawn here."""
    return components(image > 60, connectivity=4).astype(np.uint16)


def discs(shape, step, radius):
    """Draw discs in a grid; many lie across the seams of tiles."""
    rows, columns = np.indices(shape)
    return ((np.hypot(rows % step - step // 2, columns % step - step // 2) < radius) * 200).astype(np.uint8)


def large(shape):
    rows, columns = np.indices(shape)
    image = discs(shape, 31, 9)
    image[np.hypot(rows - 210, columns - 250) < 170] = 200
    return image


@pytest.mark.parametrize("image", [discs((420, 500), 29, 11), large((420, 500)), np.full((420, 500), 9, np.uint8)],
                         ids=["on seams", "larger than tiles", "one value"])  # fmt: skip
def test_nuclei_on_seams_and_larger_than_tiles(image, tmp_path, segmenter, monkeypatch):
    monkeypatch.setattr(predictor.Predictor, "part", bright)
    image[200:240, 250] = image[0, 0]  # a cut across, so there is something to join
    out = tmp_path / "out.zarr"
    assert call(write_slide(tmp_path / "a.zarr", image), out) == 0
    want = segmenter(image)
    assert (want.max() > 0) == (image.max() > 60)
    np.testing.assert_array_equal(zarr_labels.read(out), want)
    same_table(out, segmenter.measure(want, image), "a")


def test_the_pyramid_is_that_of_the_label_image(tmp_path, segmenter, monkeypatch):
    monkeypatch.setattr(predictor, "TILE", 2560)
    monkeypatch.setattr(predictor, "OVERLAP", 128)
    monkeypatch.setattr(predictor.Predictor, "part", bright)
    image = np.zeros((4300, 1100), np.uint8)
    image[1100:2600, 100:] = discs((1500, 1000), 200, 60)
    image[4000:, 900:] = discs((300, 200), 100, 40)
    out = tmp_path / "out.zarr"
    assert call(write_slide(tmp_path / "a.zarr", image, (1024, 1024), pixel_size=0.5), out) == 0
    want = segmenter(image).astype(np.uint32)
    zarr_labels.write(tmp_path / "whole.zarr", want, 0.5)
    found, whole = (zarr.open_group(path, mode="r") for path in (out / "labels/nuclei", tmp_path / "whole.zarr"))
    assert found.attrs["multiscales"] == whole.attrs["multiscales"]
    assert [found[str(n)].shape[0] for n in range(4)] == [4300, 2150, 1075, 538]
    for level in range(4):
        np.testing.assert_array_equal(found[str(level)][:], want[:: 2**level, :: 2**level])
    # Chunks without nuclei take no space.
    assert not (out / "labels/nuclei/0/0/0").exists()


def test_the_level_is_chosen_by_the_size_of_nuclei(tmp_path):
    def chosen(pixel_size, given=None, diameter=None, levels=4, usual=24):
        path = write_slide(tmp_path / "a.zarr", np.zeros((64, 80), np.uint8), pixel_size=pixel_size, levels=levels)
        level = slide.choose_level(open_levels(path), usual, given, diameter)
        assert f"level {level.number} of {levels}, {level.shape[0]} x {level.shape[1]} pixels" in level.line
        return level.number, level.diameter, level.pixel_size

    assert chosen(0.25) == (0, None, 0.25)
    assert chosen(0.15) == (1, None, 0.3)
    assert chosen(0.02) == (3, None, 0.16)
    assert chosen(1.6) == (0, None, 1.6)
    assert chosen(0.02, levels=1) == (0, None, 0.02)
    assert chosen(None) == (0, None, None)
    assert chosen(None, given=0.15) == (1, None, 0.3)
    assert chosen(0.5, given=0.15) == (1, None, 0.3)
    # What the user knows of the finest level comes first.
    assert chosen(0.02, diameter=26) == (0, 26, 0.02) and chosen(None, diameter=90) == (2, 22.5, None)
    assert chosen(0.02, usual=None) == (0, None, 0.02)


def test_a_coarser_level_is_segmented_as_an_image_of_its_own(tmp_path, synthetic_image, segmenter, capsys):
    image = cv2.resize(synthetic_image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    path, out = write_slide(tmp_path / "a.zarr", image, pixel_size=0.08, levels=3), tmp_path / "out.zarr"
    printed = cli.output(capsys, cli.call, *OPTIONS[:-1], 2 * USUAL, path, out)
    assert "level 1 of 3, 420 x 500 pixels: its nuclei of some 24 px suit the model best" in printed
    np.testing.assert_array_equal(zarr_labels.read(out), segmenter(synthetic_image))
    (pyramid,) = zarr.open_group(out / "labels/nuclei", mode="r").attrs["multiscales"]
    assert pyramid["datasets"][0]["coordinateTransformations"] == [{"type": "scale", "scale": [0.16, 0.16]}]


@pytest.mark.slow
def test_the_number_of_processes_changes_nothing(tmp_path, synthetic_image):
    path = write_slide(tmp_path / "a.zarr", synthetic_image, pixel_size=0.3)
    for jobs in (1, 2):
        assert call(path, tmp_path / f"{jobs}/out.zarr", "--jobs", jobs) == 0
    one, two = (cli.results(tmp_path / f"{jobs}/out.zarr") for jobs in (1, 2))
    assert one == two and {"measurements.parquet", "labels/nuclei/0/0/0"} <= set(one)


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_kill_9_and_a_second_start(jobs, tmp_path, synthetic_image, segmenter, capsys):
    path, out = write_slide(tmp_path / "a.zarr", synthetic_image), tmp_path / "out.zarr"
    process = start(path, out, "--jobs", jobs)
    wait_for(lambda: len(parts(out)) >= 4, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (out / "run.json").exists()
    time.sleep(1)  # its workers end
    done = len(parts(out))
    assert 4 <= done < 16
    found = []
    before = slide.Numbering.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slide.Numbering, "add", lambda self, tile: (found.append(len(parts(out))), before(self, tile)))
        assert call(path, out) == 0
    assert found[0] >= done  # nothing was thrown away
    np.testing.assert_array_equal(zarr_labels.read(out), segmenter(synthetic_image))


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_at_once_and_says_how_to_go_on(jobs, tmp_path, synthetic_image):
    path, out = write_slide(tmp_path / "a.zarr", np.tile(synthetic_image, (3, 3))), tmp_path / "out.zarr"
    process = start(path, out, "--jobs", jobs)
    wait_for(lambda: len(parts(out)) >= 3, process)
    before = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - before < 5 and process.returncode == 130
    done = len(parts(out))
    assert f"interrupted; {done} of 120 tiles are done, and the same command goes on from there" in said
    assert "Traceback" not in said and not [path for path in out.rglob("*") if "partial" in path.name]


def test_what_is_done_is_done_again_only_if_something_changed(tmp_path, synthetic_image, capsys):
    synthetic_image = synthetic_image[:150, :300]
    path, out = write_slide(tmp_path / "a.zarr", synthetic_image), tmp_path / "out.zarr"
    assert call(path, out) == 0
    before = (out / "run.json").stat().st_mtime_ns
    assert cli.output(capsys, call, path, out).endswith("(was done before)\n")
    assert (out / "run.json").stat().st_mtime_ns == before
    for options in (("--overwrite",), ("--pixel-size", "0.4")):
        assert "done before" not in cli.output(capsys, call, path, out, *options)
    assert json.loads((out / "run.json").read_text())["parameters"]["pixel_size"] == 0.4
    write_slide(path, synthetic_image[:, :120])
    assert call(path, out, "--pixel-size", "0.4") == 0
    assert zarr_labels.read(out).shape == (150, 120)


def test_an_empty_slide_of_absent_chunks(tmp_path, capsys):
    path, out = write_slide(tmp_path / "a.zarr", np.zeros((700, 900), np.uint8)), tmp_path / "out.zarr"
    assert not list((path / "0").glob("[0-9]*"))
    assert "700 x 900 (level 0, pixel size unknown), 0 nuclei" in cli.output(capsys, call, path, out)
    assert not zarr_labels.read(out).any()
    table = pd.read_parquet(out / "measurements.parquet")
    assert len(table) == 0 and {"image", "label", "area", "intensity_mean"} <= set(table)


def test_what_cannot_be_done_is_refused_in_one_line(tmp_path, synthetic_image, capsys, monkeypatch):
    image, out = synthetic_image[:150, :150], tmp_path / "out.zarr"
    path = write_slide(tmp_path / "a.zarr", image)
    unclear = write_slide(tmp_path / "c.zarr", np.stack([image] * 2), names=("a", "b"))
    values = image.astype(np.float32)
    values[77, 80] = np.nan
    damaged = write_slide(tmp_path / "d.zarr", image)
    chunk = next(file for file in sorted((damaged / "0").iterdir()) if not file.name.startswith("."))
    chunk.write_bytes(chunk.read_bytes()[:20])
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "folder.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    zarr.open_group(str(tmp_path / "s.zarr"), mode="w", zarr_format=2).attrs["bioformats2raw.layout"] = 3
    for number in (0, 1):
        write_slide(tmp_path / f"s.zarr/{number}", image)
    for arguments, said in (
        ((path, out, "--write", "geojson"), "--write: not for slides"),
        ((path, out, "--project", "max"), "--project: not for slides"),
        ((path, path), "is the slide"),
        ((path, path / "labels.zarr"), "one lies in the other"),
        ((write_slide(tmp_path / "z.zarr", np.stack([image] * 3), axes="zyx"), out), "has 3 planes along Z"),
        ((unclear, out), "choose a channel: 0 a, 1 b"),
        ((unclear, out, "--channel", "DAPI"), "no channel DAPI"),
        ((write_slide(tmp_path / "m.zarr", image > 9), out), "true/false"),
        ((write_slide(tmp_path / "n.zarr", values), out), "n.zarr: the image has NaN or infinite values"),
        ((damaged, out), "d.zarr: cannot be read"),
        ((tmp_path / "folder.zarr", out), "folder.zarr: has no images by OME-Zarr's metadata"),
        ((tmp_path / "s.zarr", out), "holds 2 images"),
    ):
        assert said in cli.error(capsys, call, *arguments)
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    assert "needs pyarrow: pip install 'nuclei-unet[parquet]'" in cli.error(capsys, call, path, out)
    assert not out.exists()


def test_nothing_of_somebody_else_is_overwritten(tmp_path, synthetic_image, capsys):
    path = write_slide(tmp_path / "a.zarr", synthetic_image[:150, :150])
    other = write_slide(tmp_path / "other.zarr", synthetic_image[:50, :50])
    before = tree_digest([other])
    assert "is not a result of this command" in cli.error(capsys, call, path, other)
    assert tree_digest([other]) == before
    (tmp_path / "file.zarr").write_text("x")
    assert "is a file" in cli.error(capsys, call, path, tmp_path / "file.zarr")
    # An empty folder is nobody's.
    (tmp_path / "empty.zarr").mkdir()
    assert call(path, tmp_path / "empty.zarr") == 0


def test_a_channel_by_name_and_one_colour(tmp_path, synthetic_image, segmenter):
    image = synthetic_image[:150, :300]
    for chosen, others, names in (("red", [], ("blue stuff", "red stuff")), ("green", [4], ("Red", "Green", "Blue"))):
        stack = np.stack([image // 2, image, *(image // part for part in others)])
        path, out = write_slide(tmp_path / f"{chosen}.zarr", stack, names=names), tmp_path / chosen / "out.zarr"
        assert call(path, out, "--channel", chosen) == 0
        np.testing.assert_array_equal(zarr_labels.read(out), segmenter(image))
