"""How large the nuclei of an image are, as the network itself sees them.

The network knows nuclei of one size, so each image is scaled until its typical nucleus has that. What the image's own
pixel size says is a first guess. Cellpose does the same (Stringer et al. 2021), with a network of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Nuclei of most animal cells are 5 to 12 micrometres wide.
NUCLEUS = 8.0
# An estimate is final if it moved by less than this factor since the look before; after four looks it is unsure.
SETTLED, LOOKS = 1.25, 4
# Spots inside of large nuclei, and lumps of such spots, look like nuclei, too. From this many times as far away, whole
# nuclei may be seen. They are taken if the network's map agrees with them by this much more.
AFAR, CLEARER = (2, 4, 8), 0.01
# Images are shrunk this many times at most, and enlarged: below 8 px, what looks like nuclei is noise more often.
SHRUNK, ENLARGED = 8, 3
# An image of more pixels is judged by those of a grid of windows in which most is to be seen.
SAMPLE, SIDE, GRID, BUSIEST = 2**21, 512, 8, 8

ESTIMATED, GIVEN, UNKNOWN = "estimated", "the user", "nothing found"


@dataclass(frozen=True)
class Diameter:
    """The equivalent diameter of an image's typical nucleus, the median one, in px of the image; and who says so.

    `agreement` is that of the last look, see `Look`; None if there was none.
    """

    px: float
    source: str = GIVEN
    sure: bool = True
    agreement: float | None = None


# What a network that takes images at their own size makes of any.
OWN_SIZE = Diameter(0.0, "not needed")


def from_pixel_size(pixel_size: float | None) -> float | None:
    """Return the diameter of a usual nucleus, px, if a pixel has this size in micrometres; None if that is unknown."""
    return NUCLEUS / pixel_size if pixel_size else None


@dataclass(frozen=True)
class Look:
    """What is seen in an image that is scaled for nuclei of `expected` px."""

    expected: float
    diameter: float | None  # the median one of the nuclei that are found, px; None: nothing is
    agreement: float  # of the network's map of distances with that of these nuclei, 0 ... 1

    @property
    def settled(self) -> bool:
        """Whether the nuclei have about the size that was expected."""
        return self.diameter is not None and 1 / SETTLED <= self.diameter / self.expected <= SETTLED


def estimate(
    look: Callable[[float], Look], usual: float, guess: float | None = None, widest: float = math.inf
) -> Diameter:
    """Estimate the diameter of the typical nucleus, px, in a few looks at an image.

    `look(expected)` scales the image so that nuclei of `expected` px have their `usual` size. The first look expects
    `guess` px, or nuclei of the usual size. From afar, no nuclei are expected that are wider than `widest` px.
    """

    def within(px: float) -> float:
        return min(max(px, usual / ENLARGED), usual * SHRUNK)

    def followed(seen: Look) -> Look:
        for _ in range(LOOKS - 1):
            if seen.settled or (again := look(within(seen.diameter))).diameter is None:
                break
            seen = again
        return seen

    first = within(guess or usual)
    for expected in (first, within(4 * first), within(first / 4)):  # as expected, coarser, finer
        if (seen := look(expected)).diameter is not None:
            break
    else:
        return Diameter(round(first, 1), UNKNOWN, sure=False)
    seen = followed(seen)
    farther = (factor * seen.diameter for factor in AFAR)
    looks = [look(px) for px in farther if px <= min(widest, usual * SHRUNK)]
    afar = max(looks, key=lambda one: one.agreement, default=seen)
    if afar.agreement > seen.agreement + CLEARER and (afar := followed(afar)).agreement > seen.agreement + CLEARER:
        seen = afar
    return Diameter(round(within(seen.diameter), 1), ESTIMATED, seen.settled, round(seen.agreement, 3))


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
