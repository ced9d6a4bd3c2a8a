"""The estimate of a diameter, with looks that are played."""

import numpy as np
import pytest

from nuclei_unet.prediction.diameter import Diameter, busiest, estimate, from_pixel_size, windows


def answers(*sizes):
    """Return a look that answers these one after the other, and the list of what was expected at each."""
    left, expected = list(sizes), []

    def look(px):
        expected.append(px)
        return left.pop(0)

    return look, expected


@pytest.mark.parametrize(
    ("sizes", "guess", "expected", "said"),
    [
        ((22,), None, [24], Diameter(22, "estimated")),
        ((40, 44), None, [24, 40], Diameter(44, "estimated")),
        ((60, 90, 100), None, [24, 60, 90], Diameter(100, "estimated")),
        ((31, 45, 64, 90), None, [24, 31, 45, 64], Diameter(90, "estimated", sure=False)),
        ((31,), 30, [30], Diameter(31, "estimated")),
        # Nothing is found at first: coarser, then finer.
        ((None, 80), None, [24, 96], Diameter(80, "estimated")),
        ((None, None, 9), None, [24, 96, 8], Diameter(9, "estimated")),
        ((None, None, None), None, [24, 96, 8], Diameter(24, "nothing found", sure=False)),
        ((60, None), None, [24, 60], Diameter(60, "estimated", sure=False)),
        # Not beyond limits.
        ((2, 2, 2), 1, [8] * 4, Diameter(8, "estimated", sure=False)),
        ((1000, 1000, 1000), 5000, [192] * 4, Diameter(192, "estimated", sure=False)),
    ],
)
def test_looks_until_the_estimate_settles(sizes, guess, expected, said):
    look, asked = answers(*sizes, *sizes[-1:])
    assert estimate(look, 24, guess) == said
    assert asked == expected


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
