"""Outlines that move by fractions of a pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.prediction.outlines import move_outlines

OFFSETS = (-1.5, -0.5, 0.25, 0.5, 1.0, 2.0)


def disc(radius, centre=(32, 32), shape=(64, 64), width=1.0):
    """Return the foreground map of an anti-aliased disc: 0.5 at its outline, from 0 to 1 over `width` px."""
    distance = np.hypot(*(np.indices(shape) - np.reshape(centre, (2, 1, 1))))
    return np.clip((radius - distance) / width + 0.5, 0, 1).astype(np.float32)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("width", [1, 4])
@given(centre=st.tuples(*[st.floats(28, 36)] * 2), radius=st.floats(9, 16))
def test_a_disc_gets_the_area_of_its_new_radius(offset, width, centre, radius):
    foreground = disc(radius, centre, width=width)
    moved = move_outlines((foreground > 0.5).astype(np.uint16), foreground, 0.5, offset)
    assert (moved > 0).sum() == pytest.approx(np.pi * (radius + offset) ** 2, rel=0.05)


@given(st.floats(-4, 4), st.floats(-4, 4))
def test_more_is_never_less(one, other):
    foreground = np.maximum(disc(9, (20, 20)), disc(6, (40, 44), width=3))
    nuclei = (foreground > 0.5).astype(np.uint16)
    low, high = (move_outlines(nuclei, foreground, 0.5, offset) > 0 for offset in sorted((one, other)))
    assert not (low & ~high).any()


def test_nothing_moves_by_nothing():
    foreground = disc(10)
    nuclei = (foreground > 0.5).astype(np.uint16)
    np.testing.assert_array_equal(move_outlines(nuclei, foreground, 0.5, 0), nuclei)
    for offset in OFFSETS:
        assert not move_outlines(np.zeros((9, 7), int), np.zeros((9, 7), np.float32), 0.5, offset).any()
        np.testing.assert_array_equal(move_outlines(np.full((9, 7), 3), np.ones((9, 7), np.float32), 0.5, offset), 3)


@pytest.mark.parametrize("offset", OFFSETS)
def test_touching_nuclei_keep_the_line_between_them_and_their_numbers(offset):
    foreground = np.maximum(disc(12, (32, 21)), disc(12, (32, 43)))
    nuclei = np.where(np.arange(64) < 32, 5, 9) * (foreground > 0.5)
    moved = move_outlines(nuclei, foreground, 0.5, offset)
    assert set(np.unique(moved)) == {0, 5, 9}
    # Column 32 is as near to one as to the other.
    assert not (moved[:, :32] == 9).any() and not (moved[:, 33:] == 5).any()
    both = (nuclei > 0) & (moved > 0)
    np.testing.assert_array_equal(moved[both], nuclei[both])


@pytest.mark.parametrize("offset", OFFSETS)
def test_the_border_of_the_image_is_no_outline(offset):
    """Half a disc at the border is half of a disc in the middle."""
    foreground = disc(11.3, (32, 32.5), (64, 66))
    nuclei = (foreground > 0.5).astype(np.uint16)
    whole = move_outlines(nuclei, foreground, 0.5, offset)
    np.testing.assert_array_equal(move_outlines(nuclei[:, 33:], foreground[:, 33:], 0.5, offset), whole[:, 33:])


@pytest.mark.parametrize("radius", [0.6, 1.2, 2, 3])
@pytest.mark.parametrize("offset", [-0.5, -1.5, -4])
def test_a_move_inwards_makes_no_nucleus_vanish(radius, offset):
    foreground = disc(radius)
    moved = move_outlines((foreground > 0.5).astype(int), foreground, 0.5, offset)
    assert 0 < moved.sum() <= (foreground > 0.5).sum()


@given(st.floats(-4, 4), st.integers(0, 2**16))
def test_dropped_specks_stay_dropped_and_filled_holes_filled(offset, seed):
    foreground = disc(14)
    rng = np.random.default_rng(seed)
    nuclei = (foreground > 0.5).astype(int)
    speckled = np.where(disc(20) > 0, foreground, rng.random((64, 64), np.float32) * (disc(28) < 0.5))
    speckled[30:33, 30:33] = 0
    found, expected = (move_outlines(nuclei, one, 0.5, offset) for one in (speckled, foreground))
    np.testing.assert_array_equal(found, expected)


def test_label_nuclei_moves_outlines_then_drops_what_is_small(evaluate):
    foreground = np.maximum(disc(10, (20, 20)), disc(4, (50, 50)))
    areas = {}
    for offset, least in ((0.0, 0), (1.0, 0), (1.0, 60), (1.0, 100), (-1.0, 30)):
        labels = label_nuclei({"foreground": foreground}, evaluate(outline_offset=offset, min_area=least))
        areas[offset, least] = np.bincount(labels.ravel())[1:].tolist()
    assert areas[0.0, 0] == [(disc(10) > 0.5).sum(), (disc(4) > 0.5).sum()]
    assert areas[1.0, 0] == pytest.approx([np.pi * 11**2, np.pi * 5**2], rel=0.05) and areas[1.0, 60] == areas[1.0, 0]
    assert len(areas[1.0, 100]) == 1 and len(areas[-1.0, 30]) == 1
