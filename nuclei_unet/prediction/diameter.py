"""How large the nuclei of an image are, as the network itself sees them.

The network knows nuclei of one size, so each image is scaled until its typical nucleus has that. What the image's own
pixel size says is a first guess. Cellpose does the same (Stringer et al. 2021), with a network of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Nuclei of most animal cells are 5 to 12 micrometres wide.
NUCLEUS = 8.0
# An estimate is final if it moved by less than this factor since the look before; after four looks it is unsure.
SETTLED, LOOKS = 1.25, 4
# Images are shrunk this many times at most, and enlarged: below 8 px, what looks like nuclei is noise more often.
SHRUNK, ENLARGED = 8, 3
# An image of more pixels is judged by those of a grid of windows in which most is to be seen.
SAMPLE, SIDE, GRID, BUSIEST = 2**21, 512, 8, 8

ESTIMATED, GIVEN, UNKNOWN = "estimated", "the user", "nothing found"


@dataclass(frozen=True)
class Diameter:
    """The equivalent diameter of an image's typical nucleus, the median one, in px of the image; and who says so."""

    px: float
    source: str = GIVEN
    sure: bool = True


# What a network that takes images at their own size makes of any.
OWN_SIZE = Diameter(0.0, "not needed")


def from_pixel_size(pixel_size: float | None) -> float | None:
    """Return the diameter of a usual nucleus, px, if a pixel has this size in micrometres; None if that is unknown."""
    return NUCLEUS / pixel_size if pixel_size else None


def estimate(look: Callable[[float], float | None], usual: float, guess: float | None = None) -> Diameter:
    """Estimate the diameter of the typical nucleus, px, in a few looks at an image.

    `look(expected)` returns the median diameter of the nuclei that the network finds in the image scaled so that
    nuclei of `expected` px would have their `usual` size; None if it finds none. The first look expects `guess` px, or
    nuclei of the usual size.
    """

    def within(px: float) -> float:
        return min(max(px, usual / ENLARGED), usual * SHRUNK)

    first = within(guess or usual)
    for expected in (first, within(4 * first), within(first / 4)):  # as expected, coarser, finer
        if (seen := look(expected)) is not None:
            break
    else:
        return Diameter(round(first, 1), UNKNOWN, sure=False)
    for _ in range(LOOKS - 1):
        if _settled(seen, expected):
            break
        expected = within(seen)
        if (again := look(expected)) is None:
            return Diameter(round(expected, 1), ESTIMATED, sure=False)
        seen = again
    return Diameter(round(within(seen), 1), ESTIMATED, _settled(seen, expected))


def _settled(seen: float, expected: float) -> bool:
    return 1 / SETTLED <= seen / expected <= SETTLED


def windows(shape: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Return the parts of an image that its diameter is estimated from: a small one is taken whole."""
    if shape[0] * shape[1] <= SAMPLE:
        return [(slice(0, shape[0]), slice(0, shape[1]))]
    rows, columns = (
        np.linspace(0, max(side - SIDE, 0), min(GRID, -(-side // SIDE))).astype(int).tolist() for side in shape
    )
    return [(slice(top, top + SIDE), slice(left, left + SIDE)) for top in rows for left in columns]


def busiest(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the windows of an image in which intensities vary most, so that an empty field does not decide."""
    order = np.argsort([-float(part.std()) for part in parts], kind="stable")
    return [parts[number] for number in order[:BUSIEST]]
