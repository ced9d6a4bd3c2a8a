"""Folds of a few annotated images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_unet.adaptation import folds
from nuclei_unet.sample import ArraySample
from tests.nuclei_unet.nuclei import drawn


def sample(labels, image=None):
    return ArraySample("a", "train", "k", (labels > 0).astype(np.uint8) if image is None else image, labels)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=1, max_size=30))
def test_folds_keep_groups_together_and_each_has_nuclei(images):
    groups, nuclei = zip(*images, strict=True)
    place = folds.folds(groups, nuclei)
    filled = {group for group, count in images if count}
    assert len(place) == len(images) and max(place) + 1 == max(min(len(filled), folds.MOST_FOLDS), 1)
    for group in set(groups):
        assert len({fold for fold, other in zip(place, groups, strict=True) if other == group}) == 1
    if filled:
        assert {fold for fold, count in zip(place, nuclei, strict=True) if count} == set(range(max(place) + 1))


def test_folds_are_about_as_large():
    assert folds.folds("abcdef", [60, 10, 50, 40, 20, 30]) == [0, 0, 1, 2, 1, 2]


@pytest.mark.parametrize("turned", [False, True])
def test_halves_are_cut_across_the_longer_side(turned):
    labels = drawn((40, 90), (20, 20, 8), (20, 70, 9), (20, 46, 6))
    labels = labels.T if turned else labels
    one, other = folds.halves(sample(labels))
    np.testing.assert_array_equal(np.concatenate([one.labels, other.labels], int(not turned)) > 0, labels > 0)
    assert (one.labels.max(), other.labels.max(), one.image_id, other.image_id) == (2, 2, "a/1", "a/2")
    assert one.image.shape == one.labels.shape and max(one.labels.shape) == 45


@pytest.mark.parametrize(
    "labels",
    [drawn((40, 90), (20, 20, 8)), drawn((40, 90), (20, 44, 8)), drawn((40, 90), (20, 44, 8), (20, 70, 8)),
     np.ones((1, 1), np.uint16)],
)  # fmt: skip
def test_a_half_without_a_whole_nucleus_is_none(labels):
    whole = sample(labels)
    assert folds.halves(whole) == [whole]


def test_the_part_of_a_large_image_with_most_nuclei_is_scored():
    labels = drawn((1500, 3000), (100, 100, 20), *((900 + 60 * n, 2500, 20) for n in range(9)))
    image = np.repeat(np.repeat((labels > 0).astype(np.uint8), 2, 0), 2, 1)  # seen at twice the size
    part = folds.scored_part(sample(labels, image))
    assert part.labels.shape == (1024, 1024) and part.labels.max() == 9 and part.image.shape == (2048, 2048)
    np.testing.assert_array_equal(part.image[::2, ::2] > 0, part.labels > 0)
    # Enlarged by four, half as much of it.
    assert max(folds.scored_part(sample(labels, np.repeat(np.repeat(image, 2, 0), 2, 1))).labels.shape) == 512
    small = sample(labels[:1024, :1024])
    assert folds.scored_part(small) is small
    assert folds.scored_part(sample(labels[:200])).labels.shape == (200, 1024)
