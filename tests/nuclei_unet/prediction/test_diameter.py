"""The estimate of a diameter, with looks that are played."""

import numpy as np
import pytest

from nuclei_unet.prediction.diameter import Diameter, Look, busiest, estimate, from_pixel_size, windows


def answers(*sizes):
    """Return a look that answers these one after the other, and the list of what was expected at each."""
    left, expected = list(sizes), []

    def look(px):
        expected.append(px)
        return Look(px, left.pop(0), 0.9)

    return look, expected


def said(px, sure=True, agreement=0.9):
    return Diameter(px, "estimated", sure, agreement)


@pytest.mark.parametrize(
    ("sizes", "guess", "expected", "diameter"),
    [
        ((22,), None, [24], said(22)),
        ((40, 44), None, [24, 40], said(44)),
        ((60, 90, 100), None, [24, 60, 90], said(100)),
        ((31, 45, 64, 90), None, [24, 31, 45, 64], said(90, sure=False)),
        ((31,), 30, [30], said(31)),
        # Nothing is found at first: coarser, then finer.
        ((None, 80), None, [24, 96], said(80)),
        ((None, None, 9), None, [24, 96, 8], said(9)),
        ((None, None, None), None, [24, 96, 8], Diameter(24, "nothing found", sure=False)),
        ((60, None), None, [24, 60], said(60, sure=False)),
        # Not beyond limits.
        ((2, 2, 2), 1, [8] * 4, said(8, sure=False)),
        ((1000, 1000, 1000), 5000, [192] * 4, said(192, sure=False)),
    ],
)
def test_looks_until_the_estimate_settles(sizes, guess, expected, diameter):
    look, asked = answers(*sizes, *sizes[-1:])
    assert estimate(look, 24, guess, widest=0) == diameter
    assert asked == expected


@pytest.mark.parametrize(("clearer", "px"), [(0.02, 100), (0.005, 14), (-0.1, 14)])
def test_whole_nuclei_are_taken_for_their_spots_if_they_agree_better(clearer, px):
    asked = []

    def look(expected):
        asked.append(expected)
        return Look(expected, 100, 0.95 + clearer) if expected > 50 else Look(expected, 14, 0.95)

    assert estimate(look, 24) == said(px, agreement=0.95 + max(clearer, 0) * (px == 100))
    assert asked[:5] == [24, 14, 28, 56, 112]
    asked.clear()
    assert estimate(look, 24, widest=40) == said(14, agreement=0.95)
    assert asked == [24, 14, 28]


def test_a_pixel_size_is_a_guess():
    assert from_pixel_size(None) is None and from_pixel_size(0.5) == 16


@pytest.mark.parametrize("shape", [(1, 1), (1000, 2000), (1, 5_000_000), (3000, 700), (20_000, 30_000)])
def test_windows_are_few_and_inside(shape):
    there = windows(shape)
    assert 1 <= len(there) <= 64
    for window in there:
        for part, side in zip(window, shape, strict=True):
            assert 0 <= part.start < side and part.stop - part.start in (512, side)
    assert (len(there) == 1) == (shape[0] * shape[1] <= 2**21)


def test_the_busiest_windows_decide():
    parts = [np.full((4, 4), n, np.uint8) for n in range(20)]
    parts[13] = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert len(busiest(parts)) == 8 and busiest(parts)[0] is parts[13]
