"""Find from the images themselves which ones are crops of one source frame.

About 87% of the training images of BBBC038 are tiles that were cut from larger frames. Neighbouring tiles share
cells and noise, so a validation split by image would measure memory. Where two tiles met, the last line of one
continues in the first line of the other. This module looks for such pairs.

Among many images, some borders match by chance, and the more images, the more matches: few wrong ones join all to one
frame. How many to expect is counted with borders shifted by half of their length, which continue nothing but look as
borders do. If they are too many, a match has to be better.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# The largest change across a border, relative to that between neighbouring lines inside the two tiles (1 = equal).
MAX_STEP = 1.2
# Correlation of two border lines without their slow changes (Gaussian, sigma in px): enough on its own.
STRONG, SMOOTHING = 0.4, 25
# Correlation of the whole lines: enough if four tiles form a 2x2 square with at least one strong border.
WEAK = 0.12

# Links by chance that are put up with: so many, and one more for each so many tiles.
CHANCE, PER_TILES = 10, 20
# Squares by chance that are put up with for each strong link, and correlations that are tried until they are as few.
CHANCE_SQUARES, WEAK_STEPS = 0.05, (WEAK, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, STRONG)

# Number of tiles that are compared with all others at a time.
CHUNK = 500
# Added to changes in grey levels: keeps flat, noiseless images from dividing by zero.
FLAT = 0.1

# Number of tiles by which chance is estimated.
SAMPLE = 2000

# Number of pairs whose lines are compared pixel by pixel at a time.
PAIRS = 10_000


@dataclass(frozen=True)
class Borders:
    """The two outermost grey lines of each side of an image, float32 (2, length), the outermost first."""

    shape: tuple[int, int]
    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray


def borders(rgb: np.ndarray) -> Borders:
    """Return the border lines of an image (H, W, 3)."""
    edges = (rgb[:2], rgb[:-3:-1], rgb[:, :2].swapaxes(0, 1), rgb[:, :-3:-1].swapaxes(0, 1))
    return Borders(rgb.shape[:2], *(edge.mean(axis=2, dtype=np.float32) for edge in edges))


def group_frames(tiles: list[Borders]) -> np.ndarray:
    """Return the number of the source frame of each tile, int64 (n,), counted from 0 in order of appearance.

    Tiles of different shape are never neighbours.
    """
    by_shape = defaultdict(list)
    for index, tile in enumerate(tiles):
        by_shape[tile.shape].append(index)
    links = [np.zeros((0, 2), int)]
    for shape, indices in by_shape.items():
        if min(shape) >= 2:  # else it has no line inside its border to compare with
            alike = [tiles[index] for index in indices]
            pairs = _neighbours(_Meetings(alike, "bottom", "top"), _Meetings(alike, "right", "left"))
            links.append(np.array(indices)[pairs])
    rows, columns = np.concatenate(links).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(tiles), len(tiles)))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _neighbours(below: "_Meetings", right: "_Meetings") -> np.ndarray:
    """Return the pairs of tiles that touched in their source frame, in any order, int (n, 2)."""
    pairs = []
    for along, across in ((below, right), (right, below)):
        links = along.strong()
        pairs.append(links)
        # A weak link counts only in a square with a strong one, so weak ones are looked for around strong ones: all
        # weak ones are many. The opposite side of the square lies after this one, or before it.
        linked = np.unique(links)
        across.compare_ends(linked)
        across.compare_starts(linked)
        opposite = [table[tile] for table in (across.after, across.before) for tile in linked]
        along.compare_ends(np.unique(np.concatenate([linked, *opposite])))
        for a, b in links:
            for beside in (across.after, across.before):
                c, d = along.weak(beside[a], beside[b])
                square = (c != b) & (d != a) & (c != d)
                for side in ((a, c), (b, d), (c, d)):
                    pairs.append(np.column_stack(np.broadcast_arrays(*side))[square])
    return np.unique(np.concatenate(pairs), axis=0)


class _Meetings:
    """Compares one side of tiles, where they may end, with the opposite one, where others may start.

    `after` and `before` hold of the tiles that were compared: those that may start where it ends, and end where it
    starts, int (n,).
    """

    def __init__(self, tiles: list[Borders], end: str, start: str):
        self.after: dict[int, np.ndarray] = {}
        self.before: dict[int, np.ndarray] = {}
        self._ends, self._starts = (_Lines.of([getattr(tile, side) for tile in tiles]) for side in (end, start))
        self._all = np.arange(len(tiles))
        self._sample = self._all[:: -(-len(tiles) // SAMPLE)]
        self._weak = self._weak_enough()

    def strong(self) -> np.ndarray:
        """Return the pairs (end, start) of tiles whose borders continue each other beyond doubt, int (n, 2)."""
        pairs, alike = self._strong(self._all, self._starts)
        _, by_chance = self._strong(self._sample, self._starts.shifted())
        allowed = int((CHANCE + len(self._all) / PER_TILES) * len(self._sample) / len(self._all))
        if len(by_chance) > allowed:
            pairs = pairs[alike > np.sort(by_chance)[-allowed - 1]]
        return pairs

    def _strong(self, tiles: np.ndarray, starts: "_Lines") -> tuple[np.ndarray, np.ndarray]:
        """Return pairs (n, 2), the ends of which are of these tiles, and their correlations (n,)."""
        pairs, values = [np.zeros((0, 2), int)], [np.zeros(0, np.float32)]
        for ends, near in _near(tiles, self._ends, starts):
            alike = self._ends.sharp[ends] @ starts.sharp[near].T
            rows, columns = np.nonzero(alike >= STRONG)
            kept = self._smooth(ends[rows], near[columns], starts)
            rows, columns = rows[kept], columns[kept]
            pairs.append(np.column_stack([ends[rows], near[columns]]))
            values.append(alike[rows, columns])
        return np.concatenate(pairs), np.concatenate(values)

    def _weak_enough(self) -> float:
        """Return the correlation of weak links at which few squares come by chance."""
        # A chance square has three weak links: from and to the strong one, and between what they lead to.
        shifted, counts = self._starts.shifted(), np.zeros(len(WEAK_STEPS))
        for ends, starts in _near(self._sample, self._ends, shifted):
            rows, columns = self._may_meet(ends, starts, shifted, WEAK)
            alike = (self._ends.whole[ends[rows]] * shifted.whole[starts[columns]]).sum(axis=1)
            counts += [(alike >= weak).sum() for weak in WEAK_STEPS]
        share = counts / (len(self._sample) * len(self._all))
        few = share**3 * len(self._all) ** 2 <= CHANCE_SQUARES
        return WEAK_STEPS[np.argmax(few)] if few.any() else WEAK_STEPS[-1]

    def compare_ends(self, tiles: np.ndarray) -> None:
        """Fill in `after` of these tiles."""
        for ends, starts in _near(tiles, self._ends, self._starts):
            rows, columns = self._may_meet(ends, starts, self._starts, self._weak)
            self.after.update(zip(ends, _parted(rows, starts[columns], len(ends)), strict=True))

    def compare_starts(self, tiles: np.ndarray) -> None:
        """Fill in `before` of these tiles."""
        for starts, ends in _near(tiles, self._starts, self._ends):
            rows, columns = self._may_meet(ends, starts, self._starts, self._weak)
            self.before.update(zip(starts, _parted(columns, ends[rows], len(starts)), strict=True))

    def weak(self, ends: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs of these tiles whose borders may continue each other: ends (n,) and starts (n,).

        The ends are those of tiles whose `after` is known.
        """
        wanted = np.zeros(len(self._all), bool)
        wanted[starts] = True
        after = [self.after[end] for end in ends]
        candidates = np.concatenate([self._all[:0], *after])
        kept = wanted[candidates]
        return np.repeat(ends, [len(one) for one in after])[kept], candidates[kept]

    def _may_meet(
        self, ends: np.ndarray, starts: np.ndarray, lines: "_Lines", weak: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs with a weak link: numbers among `ends` (n,) and among `starts` (n,)."""
        alike = self._ends.sharp[ends] @ lines.sharp[starts].T >= STRONG
        alike |= self._ends.whole[ends] @ lines.whole[starts].T >= weak
        rows, columns = np.nonzero(alike)
        kept = self._smooth(ends[rows], starts[columns], lines)
        return rows[kept], columns[kept]

    def _smooth(self, ends: np.ndarray, starts: np.ndarray, lines: "_Lines") -> np.ndarray:
        """Tell of each pair if the change across the border is like that between lines inside the tiles, bool (n,)."""
        alike = np.zeros(len(ends), bool)
        for first in range(0, len(ends), PAIRS):
            end, start = ends[first : first + PAIRS], starts[first : first + PAIRS]
            across = np.abs(self._ends.outermost[end] - lines.outermost[start]).mean(axis=1)
            inside = (self._ends.inside[end] + lines.inside[start]) / 2
            alike[first : first + PAIRS] = across / (inside + FLAT) <= MAX_STEP
        return alike & (ends != starts)


@dataclass(frozen=True)
class _Lines:
    """What is compared of one side of all tiles, float32: by line (n, length), and by tile (n,)."""

    outermost: np.ndarray
    sharp: np.ndarray
    whole: np.ndarray
    inside: np.ndarray
    mean: np.ndarray

    @classmethod
    def of(cls, lines: list[np.ndarray]) -> "_Lines":
        """Return what is compared of lines (2, length), the outermost first."""
        both = np.stack(lines)
        outermost = both[:, 0]
        mean = outermost.mean(axis=1)
        sharp = _unit(outermost - gaussian_filter1d(outermost, SMOOTHING, axis=1))
        inside = np.abs(outermost - both[:, 1]).mean(axis=1)
        return cls(outermost, sharp, _unit(outermost - mean[:, None]), inside, mean)

    def shifted(self) -> "_Lines":
        """Return lines that begin in their middle and go on at their start."""
        turned = (np.roll(lines, lines.shape[1] // 2, axis=1) for lines in (self.outermost, self.sharp, self.whole))
        return _Lines(*turned, self.inside, self.mean)


def _near(tiles: np.ndarray, lines: _Lines, others: _Lines) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield a few of these tiles at a time, and all whose `others` are near enough in grey level to be compared.

    So memory grows with the number of tiles, not with its square, and most pairs are not looked at: two lines differ
    by no less than their means do.
    """
    tiles = tiles[np.argsort(lines.mean[tiles], kind="stable")]
    # One FLAT more than in `_smooth`, so that rounding decides nothing.
    reach = MAX_STEP * (others.inside / 2 + FLAT) + FLAT
    for first in range(0, len(tiles), CHUNK):
        some = tiles[first : first + CHUNK]
        own = MAX_STEP * lines.inside[some] / 2
        low, high = (lines.mean[some] - own).min(), (lines.mean[some] + own).max()
        yield some, np.flatnonzero((others.mean + reach >= low) & (others.mean - reach <= high))


def _parted(numbers: np.ndarray, values: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the values of each number below `count`."""
    order = np.argsort(numbers, kind="stable")
    return np.split(values[order], np.searchsorted(numbers[order], range(1, count)))


def _unit(lines: np.ndarray) -> np.ndarray:
    return lines / (np.linalg.norm(lines, axis=1, keepdims=True) + 1e-6)


def split_by_frame(frames: np.ndarray, image_types: list[str], fraction: float, seed: int) -> np.ndarray:
    """Choose validation images by whole frames, stratified by image type; bool (n,), True = validation.

    In each image type, frames come in random order (from `seed`). A frame is taken if it brings the number of images
    nearer to `fraction` of that type. A frame's type is that of most of its images. A type with a single frame stays in
    training.
    """
    chosen = np.zeros(len(frames), bool)
    order = np.argsort(frames, kind="stable")
    numbers, starts = np.unique(frames[order], return_index=True)
    members = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))
    by_type = defaultdict(list)
    for frame, indices in members.items():
        names, counts = np.unique([image_types[i] for i in indices], return_counts=True)
        by_type[str(names[np.argmax(counts)])].append(frame)
    for image_type in sorted(by_type):
        wanted, taken = fraction * sum(len(members[frame]) for frame in by_type[image_type]), 0
        order = np.random.default_rng([seed, *image_type.encode()]).permutation(by_type[image_type])
        for frame in order[:-1]:
            indices = members[int(frame)]
            if abs(taken + len(indices) - wanted) < abs(taken - wanted):
                chosen[indices] = True
                taken += len(indices)
    return chosen
