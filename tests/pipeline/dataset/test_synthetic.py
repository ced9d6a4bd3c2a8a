"""The synthetic data set: repeatable bytes, the layout of BBBC038, labels that hold what the real ones hold."""

import zipfile
from collections import Counter

import numpy as np
import pytest

from nuclei_unet.formats import kaggle
from nuclei_unet.formats.png import decode
from pipeline.dataset.synthetic import KINDS, blob, draw_frame, frames, held_out_images, kind_of, write_archives

TRAIN, TEST, SEED = 18, 5, 3


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic")
    write_archives(folder, TRAIN, TEST, SEED)
    return folder


@pytest.fixture(scope="module")
def training(archives):
    """ImageId -> (RGBA image, masks uint8 (n, H, W))."""
    images, masks = {}, {}
    with zipfile.ZipFile(archives / "stage1_train.zip") as archive:
        for name in archive.namelist():
            pixels = decode(archive.read(name), name)
            identifier, folder, _ = name.split("/")
            if folder == "images":
                images[identifier] = pixels
            else:
                masks.setdefault(identifier, []).append(pixels)
    return {identifier: (images[identifier], np.stack(masks[identifier])) for identifier in images}


def test_layout(archives):
    with zipfile.ZipFile(archives / "stage1_train.zip") as archive:
        names = archive.namelist()
    identifiers = {name.split("/")[0] for name in names}
    assert names == sorted(names) and identifiers == frames(TRAIN, SEED).keys()
    for identifier in identifiers:
        assert len(identifier) == 64 and set(identifier) <= set("0123456789abcdef")
        assert {f"{identifier}/images/{identifier}.png", f"{identifier}/masks/1.png"} <= set(names)
    with zipfile.ZipFile(archives / "stage1_test.zip") as archive:
        tests = [name.split("/") for name in archive.namelist()]
    assert len(tests) == TEST and not identifiers & {identifier for identifier, _, _ in tests}
    assert all(folder == "images" and file == f"{identifier}.png" for identifier, folder, file in tests)


def test_masks_are_disjoint_not_empty_and_of_the_image_shape(training):
    assert len(training) == TRAIN
    for image, masks in training.values():
        assert image.dtype == np.uint8 and image.shape[2] == 4 and (image[..., 3] == 255).all()
        assert masks.dtype == np.uint8 and masks.shape[1:] == image.shape[:2]
        assert set(np.unique(masks)) == {0, 255}
        assert (masks > 0).sum(axis=(1, 2)).min() >= 8
        assert (masks > 0).sum(axis=0).max() == 1


def test_frames_have_four_crops_but_the_last_and_the_first_five_have_all_kinds():
    assert Counter(frames(18, 0).values()) == {0: 4, 1: 4, 2: 4, 3: 4, 4: 2}
    assert all(kind in map(kind_of, range(5)) for kind in KINDS.values())


def test_crops_of_a_frame_continue_one_another(training):
    by_frame = {}
    for identifier, frame in frames(TRAIN, SEED).items():
        by_frame.setdefault(frame, []).append(training[identifier])
    seams, strangers = [], []  # pairs of borders that were cut apart, and that never met
    for crops in by_frame.values():
        if len(crops) < 4:
            continue
        nuclei = [masks.any(axis=0) for _, masks in crops]
        grey = [image[..., :3].mean(axis=2) for image, _ in crops]
        # Left and right of a seam, then above and below it, transposed.
        for first, second, turned in ((0, 1, True), (2, 3, True), (0, 2, False), (1, 3, False)):
            one, other = ((crop.T if turned else crop) for crop in (nuclei[first], nuclei[second]))
            seams.append((one[-1], other[0]))
            strangers.append((one[0], other[-1]))
            one, other = ((crop.T if turned else crop) for crop in (grey[first], grey[second]))
            assert np.corrcoef(one[-1], other[0])[0, 1] > 0.5
    assert len(seams) == 16
    assert overlap(seams) > 0.8
    assert overlap(strangers) < 0.4


def overlap(borders):
    """Intersection over union of the nuclei in all pairs of borders together."""
    return sum((a & b).sum() for a, b in borders) / sum((a | b).sum() for a, b in borders)


def test_solution_decodes_to_the_nuclei_that_were_drawn(archives):
    with zipfile.ZipFile(archives / "stage1_test.zip") as archive:
        images = {name.split("/")[0]: decode(archive.read(name), name) for name in archive.namelist()}
    solution = kaggle.read_csv(archives / "stage1_solution.csv")
    assert solution.keys() == images.keys()
    for identifier, rgb, labels in held_out_images(TEST, SEED):
        assert np.array_equal(images[identifier][..., :3], rgb)
        areas = np.bincount(labels.ravel())[1:]
        np.testing.assert_array_equal(solution[identifier]() > 0, np.isin(labels, np.flatnonzero(areas >= 8) + 1))


def touching_pairs(labels):
    """Number of pairs of labels with 8-adjacent pixels."""
    pairs = set()
    height, width = labels.shape
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = labels[: height - down, max(-across, 0) : width - max(across, 0)]
        there = labels[down:, max(across, 0) : width - max(-across, 0)]
        meet = (here != there) & (here > 0) & (there > 0)
        pairs |= {tuple(sorted(pair)) for pair in zip(here[meet].tolist(), there[meet].tolist(), strict=True)}
    return len(pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_have_their_brightness_colour_and_size(kind):
    mosaic = tuple(2 * side for side in KINDS[kind].crop)
    for seed in range(3):
        rgb, labels = draw_frame(KINDS[kind], np.random.default_rng(seed), mosaic)
        assert labels.dtype == np.uint16 and touching_pairs(labels) >= 3
        assert rgb.dtype == np.uint8 and rgb.shape == (*labels.shape, 3)
        inside, outside = np.median(rgb[labels > 0]), np.median(rgb[labels == 0])
        saturation = np.ptp(rgb.astype(int), axis=2).mean()
        area = np.median(np.bincount(labels.ravel())[1:])
        if "fluorescent" in kind:
            assert outside < 30 and inside > outside + 5 and saturation == 0
            assert 100 < area < 400 if kind.startswith("small") else 1000 < area < 3500
        else:
            assert outside > 140 and inside < outside - 40
            assert saturation > 15 if kind == "purple" else saturation == 0
        # Every quarter has a nucleus.
        rows, columns = (np.array_split(np.arange(length), 2) for length in labels.shape)
        assert all(labels[np.ix_(row, column)].any() for row in rows for column in columns)


def test_blob_has_the_area_of_its_radius_and_none_outside_the_frame():
    inside = blob(np.random.default_rng(0), (64, 64), np.array([32, 32]), 12, (1, 2), 0)
    assert inside.coverage.sum() == pytest.approx(np.pi * 12**2, rel=0.03)
    for centre in ((-90, 20), (20, 900)):
        assert blob(np.random.default_rng(0), (64, 64), np.array(centre), 12, (1, 2), 0).coverage.size == 0
