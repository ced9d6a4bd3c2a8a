"""The preprocess stage on archives made by hand, with every fault that data may have."""

import json
import re
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from nuclei_unet.formats import kaggle
from nuclei_unet.formats.run_lengths import encode_run_lengths
from pipeline import download, layout, preprocess
from pipeline.dataset import archives
from pipeline.dataset import processed as dataset
from pipeline.params import FaultSettings
from tests import PARAMS
from tests.refusals import refused

FAULTS = list(FaultSettings.model_fields)
NO_PNG = b"this is no PNG"


def picture(number, dtype=np.uint8):
    """Return a dark noisy field (40 + number, 50), so no two are alike or neighbours, with a bright square."""
    image = np.random.default_rng(number).integers(0, 20, (40 + number, 50)).astype(dtype)
    image[5:15, 5:15] += 100
    return image


def mask(number, rows=slice(5, 15), columns=slice(5, 15), value=255):
    painted = np.zeros((40 + number, 50), np.uint8)
    painted[rows, columns] = value
    return painted


def png(pixels) -> bytes:
    return pixels if isinstance(pixels, bytes) else cv2.imencode(".png", pixels)[1].tobytes()


def write_zip(path, images):
    """Write {id: (image, masks)}; arrays become PNGs in OpenCV's channel order, bytes stay as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        for image_id, (image, masks) in images.items():
            archive.writestr(f"{image_id}/images/{image_id}.png", png(image))
            for number, pixels in enumerate(masks, start=1):
                archive.writestr(f"{image_id}/masks/{number}.png", png(pixels))
    return path


def train_images():
    return {f"train{n}": (picture(n), [mask(n)]) for n in range(6)}


@pytest.fixture
def project(here):
    """Return a function that makes a project here: params.yaml, data/raw/ with six sound images and one of test."""
    (here / "data" / "raw").mkdir(parents=True)

    def make(train=None, solution=None, **on_fault):
        yaml = YAML()
        content = yaml.load(PARAMS)
        content["preprocess"]["validation_fraction"] = 0.34
        content["preprocess"]["on_fault"] |= dict.fromkeys(FAULTS, "skip") | on_fault
        yaml.dump(content, here / "params.yaml")
        write_zip(Path("data/raw/stage1_train.zip"), train_images() | (train or {}))
        write_zip(Path("data/raw/stage1_test.zip"), {"test0": (picture(9), [])})
        rows = solution or [("test0", encode_run_lengths(mask(9)), 49, 50, "Public")]
        pd.DataFrame(rows, columns=[*kaggle.COLUMNS, "Usage"]).to_csv("data/raw/stage1_solution.csv", index=False)

    return make


def audit():
    return json.loads(Path("reports/data_audit.json").read_text())


def outputs(folder):
    paths = (path for name in ("data/processed", "reports") for path in (folder / name).rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}


def process_one(tmp_path, settings, image, masks, **changes):
    """Process one training image in this process; return what is kept of it, its faults, and the sample."""
    archive = write_zip(tmp_path / f"{len(list(tmp_path.iterdir()))}.zip", {"a": (image, masks)})
    section = settings.preprocess.model_copy(update=changes)
    (tmp_path / "out").mkdir(exist_ok=True)
    with archives.open_archive(archive) as zipped:
        names = archives.mask_members(zipped)["a"]
    kept, faults = preprocess.process_image(("a", names), preprocess.Work(archive, tmp_path / "out", section))
    if kept is None:
        assert not any((tmp_path / "out").rglob("*.png"))
        return None, faults, None
    pixels = dataset.read_image(tmp_path / "out" / "images" / "a.png")
    return kept, faults, (pixels, dataset.read_labels(tmp_path / "out" / "labels" / "a.png"))


def test_masks_become_labels_in_the_order_of_their_names(tmp_path, settings):
    masks = [mask(0, columns=slice(start, start + 3)) for start in (30, 10, 20)]
    kept, faults, (_, labels) = process_one(tmp_path, settings, picture(0), masks)
    assert (kept.nuclei, kept.image_type, kept.borders.shape, faults) == (3, "small-fluorescent", (40, 50), [])
    np.testing.assert_array_equal(labels[5, [30, 10, 20]], [1, 2, 3])
    assert (labels > 0).sum() == 3 * 30
    one = np.full((1, 1), 255, np.uint8)
    kept, faults, (pixels, labels) = process_one(tmp_path, settings, one, [one])
    assert kept.nuclei == 1 and faults == [] and pixels.tolist() == [[0]] and labels.tolist() == [[1]]


def test_grey_edges_and_overlaps_do_not_fatten_a_nucleus(tmp_path, settings):
    soft = mask(0)
    soft[4] = soft[15] = 127
    soft[5, 5:15] = 128
    _, faults, (_, labels) = process_one(tmp_path, settings, picture(0), [soft])
    np.testing.assert_array_equal(labels, mask(0) > 0)
    assert faults == []
    # Overlapping pixels stay with the first mask.
    masks = [mask(0, columns=slice(5, 15)), mask(0, columns=slice(13, 20))]
    _, faults, (_, labels) = process_one(tmp_path, settings, picture(0), masks)
    np.testing.assert_array_equal(labels[5, 4:21], [0] + [1] * 10 + [2] * 5 + [0])
    assert [(f.fault, f.detail) for f in faults] == [("overlapping_masks", "mask 2.png shares 20 px with others")]


@pytest.mark.parametrize(
    ("bad", "fault", "detail"),
    [
        *((mask(0, value=value), "empty_mask", "is empty") for value in (0, 100)),
        (mask(0, rows=slice(6, 8)), "empty_mask", "lies wholly under other masks"),
        (mask(1), "mask_shape", r"mask 2.png is \(41, 50\), the image \(40, 50\)"),
        (NO_PNG, "unreadable_mask", "masks/2.png: not a PNG"),
        (png(mask(0))[:-9], "unreadable_mask", "masks/2.png: PNG is cut short"),
    ],
)
def test_a_bad_mask_is_left_out_without_a_gap_in_the_labels(tmp_path, settings, bad, fault, detail):
    masks = [mask(0), bad, mask(0, columns=slice(30, 40))]
    kept, faults, (_, labels) = process_one(tmp_path, settings, picture(0), masks)
    np.testing.assert_array_equal(labels, (masks[0] > 0) * 1 + (masks[2] > 0) * 2)
    assert kept.nuclei == 2
    assert [found.fault for found in faults] == [fault] and re.search(detail, faults[0].detail)


def test_no_set_may_be_empty_and_none_may_share_an_image(project):
    project(solution=[("test0", "", 49, 50, "Public")])
    refused("no usable test image", preprocess.main)
    # One would overwrite the other.
    project(train={"test0": (picture(7), [mask(7)])})
    refused("test0 is in stage1_train.zip and in stage1_test.zip", preprocess.main)
    project()
    text = Path("params.yaml").read_text().replace("validation_fraction: 0.34", "validation_fraction: 0.01")
    Path("params.yaml").write_text(text)
    refused(r"preprocess.validation_fraction: 0.01 of 6 images in 6 source frames", preprocess.main)
    assert [path.name for path in Path("data").iterdir()] == ["raw"] and not any(Path("reports").iterdir())


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_colour_alpha_and_16_bit_images_look_alike(tmp_path, settings, channels):
    grey = picture(0)
    alpha = np.full_like(grey, 255)
    forms = [grey, np.dstack([grey] * 3), np.dstack([grey] * 3 + [alpha]), grey.astype(np.uint16) * 257]
    seen = [process_one(tmp_path, settings, form, [mask(0)], channels=channels)[2][0] for form in forms]
    assert seen[0].shape == ((40, 50) if channels == 1 else (40, 50, 3))
    for pixels in seen[1:]:
        np.testing.assert_array_equal(pixels, seen[0])


def test_sound_data(project):
    project(**dict.fromkeys(FAULTS, "fail"))
    preprocess.main()
    manifest = dataset.read_manifest()
    assert tuple(manifest.columns) == dataset.MANIFEST_COLUMNS
    assert manifest.image_id.tolist() == ["test0", *(f"train{n}" for n in range(6))]
    assert manifest.split.value_counts().to_dict() == {"train": 4, "validation": 2, "test": 1}
    assert manifest.frame.nunique() == 7 and manifest.height.tolist() == [49, 40, 41, 42, 43, 44, 45]
    samples = [sample for split in layout.SPLITS for sample in dataset.read_split(split)]
    for sample in samples:
        np.testing.assert_array_equal(sample.labels > 0, mask(len(sample.labels) - 40) > 0)
    found = audit()
    assert found["images"] == found["nuclei"] == {"train": 4, "validation": 2, "test": 1}
    assert found["frames"] == 6 and found["faults"] == []
    assert found["fault_counts"] == dict.fromkeys(FAULTS, 0)


# One training image at fault, called "bad": (fault, image, masks, whether an image is left out). Of masks, see above.
BAD = [
    ("unreadable_image", NO_PNG, [mask(7)], True),
    ("empty_mask", picture(7), [mask(7), mask(7, value=0)], False),
    ("no_nuclei", picture(7), [], True),
    ("duplicate_image", np.dstack([picture(3)] * 3), [mask(3)], True),
]


@pytest.mark.parametrize(("fault", "image", "masks", "left_out"), BAD, ids=[row[0] for row in BAD])
def test_a_skipped_fault_is_counted(project, fault, image, masks, left_out):
    project(train={"bad": (image, masks)})
    preprocess.main()
    found = audit()
    assert found["fault_counts"] == dict.fromkeys(FAULTS, 0) | {fault: 1}
    # Of twins the one that comes first, here "bad", is kept.
    name = "train3" if fault == "duplicate_image" else "bad"
    assert [(f["fault"], f["image_id"], f["handled"]) for f in found["faults"]] == [(fault, name, "skip")]
    kept = {"bad", *train_images(), "test0"} - ({name} if left_out else set())
    assert set(dataset.read_manifest().image_id) == kept
    for folder in ("images", "labels"):
        assert {path.stem for path in Path("data/processed", folder).iterdir()} == kept


@pytest.mark.parametrize(("fault", "image", "masks", "left_out"), BAD[-2:], ids=[row[0] for row in BAD[-2:]])
def test_a_fault_set_to_fail_stops_and_leaves_what_was_there(project, tmp_path, fault, image, masks, left_out):
    project(train={"bad": (image, masks)}, **{fault: "fail"})
    Path("data/processed").mkdir()
    Path("data/processed/manifest.csv").write_text("of an earlier run")
    Path("reports").mkdir()
    before = outputs(tmp_path)
    name = "train3" if fault == "duplicate_image" else "bad"
    message = refused(f"stage1_train.zip: image {name}: ", preprocess.main)
    assert f"preprocess.on_fault.{fault} to skip" in message
    assert outputs(tmp_path) == before
    assert {path.name for path in Path("data").iterdir()} == {"raw", "processed"}


def test_a_second_run_gives_the_same_bytes(project, tmp_path, monkeypatch):
    project()
    download.write_synthetic(Path("data/raw"), train=20, test=4, seed=7)  # training images of 5 frames
    preprocess.main()
    first = outputs(tmp_path)
    monkeypatch.setattr(preprocess, "cpus", lambda: 1)
    preprocess.main()
    assert outputs(tmp_path) == first and len(first) == 2 * 24 + 2
    manifest = dataset.read_manifest()
    frames = manifest[manifest.split != "test"].groupby("frame").split
    assert frames.ngroups == 5 and (frames.size() == 4).all() and (frames.nunique() == 1).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("test1", "1 3", 49, 50, "Public")], "do not agree on test0"),
        ([("test0", "1 3", 49, 50, "Public"), ("test1", "", 9, 9, "Public")], "do not agree on test1"),
        ([("test0", "1 3", 48, 50, "Public")], r"image test0: the solution's size \(48, 50\) is not the image's"),
        ([("test0", "", 49, 50, "Public")], "image test0: has no nucleus"),
    ],
)
def test_a_solution_that_does_not_fit_the_images(project, rows, message):
    project(solution=rows, mask_shape="fail", no_nuclei="fail")
    refused(message, preprocess.main)
    assert [path.name for path in Path("data").iterdir()] == ["raw"]
