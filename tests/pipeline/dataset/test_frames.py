"""Crops of one source frame are found from their borders, and a validation split never cuts a frame."""

import tracemalloc

import numpy as np
import pytest

from pipeline.dataset import frames, synthetic


def noise(count, height, width):
    rng = np.random.default_rng(3)
    return [rng.integers(20, 80, (height, width, 1), dtype=np.uint8).repeat(3, axis=2) for _ in range(count)]


def smooth(count, height, width):
    """Return something like micrographs: neighbouring pixels resemble each other."""
    rng = np.random.default_rng(3)
    fields = [synthetic.smooth_noise(rng, (height, width), 6) for _ in range(count)]
    return [(120 + 30 * field[..., None]).clip(0, 255).repeat(3, axis=2) for field in fields]


def group(images, **more):
    return frames.group_frames([frames.borders(image) for image in images], **more).tolist()


def quarters(image):
    height, width = image.shape[0] // 2, image.shape[1] // 2
    return [image[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]


@pytest.mark.parametrize("chunk", [1, 3, frames.CHUNK])
def test_quarters_of_a_frame_belong_together_however_many_are_compared_at_a_time(chunk, monkeypatch):
    images = [crop for image in smooth(3, 120, 160) for crop in quarters(image)]
    monkeypatch.setattr(frames, "CHUNK", chunk)
    assert group(images) == [0] * 4 + [1] * 4 + [2] * 4


def test_chance_joins_few_of_many_tiles_and_frames_stay_whole():
    # At a fixed threshold, what looks alike by chance among a thousand joins them all.
    alone = [np.random.default_rng(n).normal(120, 20, (64, 64, 1)).clip(0, 255).repeat(3, axis=2) for n in range(1000)]
    found = group([*[crop for image in smooth(10, 128, 128) for crop in quarters(image)], *alone])
    sizes = np.bincount(found)
    assert [len(set(found[n : n + 4])) for n in range(0, 40, 4)] == [1] * 10
    assert len(sizes) > 850 and sizes.max() < 20


def test_crops_of_different_shape_one_image_none_and_tiny_ones():
    (image,) = smooth(1, 100, 100)
    assert group([image[:50], image[50:]]) == [0, 0]
    assert group([image[:50], image[50:, :99]]) == [0, 1]
    assert group([]) == []
    assert group(noise(6, 60, 80)) == list(range(6))
    assert group([np.full((9, 9, 3), 7, np.uint8)] * 3) == [0, 1, 2]
    assert group(noise(1, 9, 9)) == [0]
    assert group(noise(2, 1, 1)) == [0, 1]
    assert group(noise(2, 1, 50)) == [0, 1]


@pytest.mark.parametrize("seed", [1, 5])
def test_frames_of_the_drawn_data_set(seed):
    truth = list(synthetic.frames(24, seed).values())
    found = group([rgb for _, rgb, _ in synthetic.training_images(24, seed)])
    # Appearance orders both, so the same groups have the same numbers.
    assert found == truth


def test_published_mosaics_are_whole(published_training, known_groups):
    found = frames.group_frames([borders for _, borders in published_training.values()])
    mosaics = known_groups.loc[list(published_training), "mosaic"].to_numpy()
    numbers = np.unique(mosaics[~np.isnan(mosaics)])
    assert len(numbers) > 70
    for number in numbers:
        assert len(set(found[mosaics == number])) == 1
    # Not all in one heap: a group seldom holds two mosaics, never three.
    held = [len(set(mosaics[(found == group) & ~np.isnan(mosaics)])) for group in np.unique(found)]
    assert max(held) <= 2 and held.count(2) < 0.1 * len(numbers)
    assert np.bincount(found).max() < 50


def test_published_split_cuts_no_mosaic(published_training, known_groups, settings):
    image_types = [image_type for image_type, _ in published_training.values()]
    found = frames.group_frames([borders for _, borders in published_training.values()])
    fraction = settings.preprocess.validation_fraction
    chosen = frames.split_by_frame(found, image_types, fraction, settings.preprocess.seed)
    mosaics = known_groups.loc[list(published_training), "mosaic"].to_numpy()
    known = ~np.isnan(mosaics)
    assert chosen[known].any() and not set(mosaics[known & chosen]) & set(mosaics[known & ~chosen])
    assert abs(chosen.mean() - fraction) < 0.02


# 30 frames of 1 to 5 images, two image_types.
FRAMES = np.repeat(np.arange(30), np.arange(30) % 5 + 1)
IMAGE_TYPES = ["dark" if frame < 20 else "light" for frame in FRAMES]


@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.3, 0.5])
def test_split_is_near_the_fraction_in_each_kind_and_cuts_no_frame(fraction):
    chosen = frames.split_by_frame(FRAMES, IMAGE_TYPES, fraction, seed=1)
    assert not set(FRAMES[chosen]) & set(FRAMES[~chosen])
    for image_type in ("dark", "light"):
        members = np.array(IMAGE_TYPES) == image_type
        # The last frame to come or to stay out has at most five images.
        assert abs(chosen[members].sum() - fraction * members.sum()) <= 2.5


def test_a_kind_of_one_frame_stays_in_training_and_a_frame_has_the_kind_of_most_of_its_images():
    chosen = frames.split_by_frame(np.array([0, 0, 1, 1, 2]), ["rare", "rare", "a", "a", "a"], 0.9, seed=0)
    assert not chosen[:2].any()
    assert chosen[2:].sum() in (1, 2)
    # By image, "b" would have two frames to choose from; by frame it has one, which stays in training.
    chosen = frames.split_by_frame(np.array([0, 0, 0, 1, 2, 3]), ["a", "a", "b", "b", "a", "a"], 0.9, seed=0)
    assert not chosen[3]


class Drawn:
    """Stands for the comparison of tiles in one direction: its links are drawn at random."""

    def __init__(self, rng, count):
        pairs = [(a, b) for a in range(count) for b in range(count) if a != b]
        self.links = {pair for pair in pairs if rng.random() < 0.3}
        self.sure = {pair for pair in sorted(self.links) if rng.random() < 0.1}

    def strong(self):
        return np.array(sorted(self.sure), int).reshape(-1, 2)

    def compare_ends(self, tiles):
        self.after = {tile: np.array([b for a, b in self.links if a == tile], int) for tile in tiles}

    def compare_starts(self, tiles):
        self.before = {tile: np.array([a for a, b in self.links if b == tile], int) for tile in tiles}

    def weak(self, ends, starts):
        met = [(end, start) for end in ends for start in starts if (end, start) in self.links]
        return np.array(met, int).reshape(-1, 2).T


def squares(below, right):
    """Return the pairs of each 2x2 square with a strong link, by looking at all of them."""
    for a, b in right.links:
        for c, d in right.links:
            meet = (a, c) in below.links and (b, d) in below.links and len({a, b, c, d}) == 4
            if meet and ({(a, b), (c, d)} & right.sure or {(a, c), (b, d)} & below.sure):
                yield {(a, b), (c, d), (a, c), (b, d)}


@pytest.mark.parametrize("seed", range(8))
def test_squares_are_found_around_strong_links(seed):
    rng = np.random.default_rng(seed)
    below, right = Drawn(rng, 12), Drawn(rng, 12)
    expected = {pair for square in squares(below, right) for pair in square} | below.sure | right.sure
    assert len(expected) > len(below.sure | right.sure)
    found = frames._neighbours(below, right)
    # Which one of two comes first is all the same.
    assert set(map(frozenset, found.tolist())) == set(map(frozenset, expected))


def test_many_small_noisy_tiles_take_little_memory():
    # One in six pairs looks alike by chance; the squares that they form would be billions.
    rng = np.random.default_rng(0)
    tiles = [frames.borders(rng.normal(50, 5, (64, 64, 3)).clip(0, 255).astype(np.uint8)) for _ in range(300)]
    tracemalloc.start()
    assert len(frames.group_frames(tiles)) == 300
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
