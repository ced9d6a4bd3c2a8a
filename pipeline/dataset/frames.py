"""Find from the images themselves which ones are crops of one source frame.

About 87% of the training images of BBBC038 are tiles that were cut from larger frames. Neighbouring tiles share
cells and noise, so a validation split by image would measure memory. Where two tiles met, the last line of one
continues in the first line of the other. This module looks for such pairs.
"""

from collections import defaultdict
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

# Number of tiles that are compared with all others at a time.
CHUNK = 500

RIGHT, BELOW = "right", "below"


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
    pairs = set()
    by_shape = defaultdict(list)
    for index, tile in enumerate(tiles):
        by_shape[tile.shape].append(index)
    for shape, indices in by_shape.items():
        if min(shape) < 2:  # has no line inside its border to compare with
            continue
        pairs |= _neighbours(tiles, indices)
    rows, columns = np.array(sorted(pairs), dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(len(tiles), len(tiles)))
    _, component = connected_components(graph, directed=False)
    _, first, inverse = np.unique(component, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _neighbours(tiles: list[Borders], indices: list[int]) -> set[tuple[int, int]]:
    """Return the pairs of tiles (all of one shape) that touched in their source frame."""
    strong, weak = set(), set()
    for direction, end, start in ((BELOW, "bottom", "top"), (RIGHT, "right", "left")):
        starts = np.stack([getattr(tiles[i], start) for i in indices])
        # A few tiles at a time against all, so memory grows with the number of tiles, not with its square.
        for first in range(0, len(indices), CHUNK):
            ends = np.stack([getattr(tiles[i], end) for i in indices[first : first + CHUNK]])
            smooth = _step(ends, starts) <= MAX_STEP
            sharp = _correlation(_detrend(ends[:, 0]), _detrend(starts[:, 0]))
            whole = _correlation(_centre(ends[:, 0]), _centre(starts[:, 0]))
            smooth[np.arange(len(ends)), np.arange(first, first + len(ends))] = False
            for found, correlated in ((strong, sharp >= STRONG), (weak, (sharp >= STRONG) | (whole >= WEAK))):
                links = np.argwhere(smooth & correlated)
                found.update((indices[first + a], indices[b], direction) for a, b in links)
    links = strong | _supported(strong, weak)
    return {(a, b) for a, b, _ in links}


def _supported(strong: set[tuple[int, int, str]], weak: set[tuple[int, int, str]]) -> set[tuple[int, int, str]]:
    """Return the links of all 2x2 squares of tiles of which at least one link is strong; `weak` holds all links.

    Squares are looked for around strong links alone: among many small and noisy tiles, weak ones form billions.
    """
    after, before = defaultdict(set), defaultdict(set)
    for a, b, direction in weak:
        after[a, direction].add(b)
        before[b, direction].add(a)
    found = set()
    for a, b, direction in strong:
        across = BELOW if direction == RIGHT else RIGHT
        # The opposite side of the square lies after this one, or before it.
        for beside, forward in ((after, True), (before, False)):
            for c in beside[a, across]:
                for d in beside[b, across] & after[c, direction]:
                    if len({a, b, c, d}) == 4:
                        sides = ((a, c), (b, d)) if forward else ((c, a), (d, b))
                        found |= {(a, b, direction), (c, d, direction), *((*side, across) for side in sides)}
    return found


def _step(ends: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the change across each border divided by that between lines inside the tiles, (n_ends, n_starts).

    `ends` and `starts` are (n, 2, length), outermost line first.
    """
    across = np.stack([np.abs(end[0] - starts[:, 0]).mean(axis=1) for end in ends])
    inside_ends = np.abs(ends[:, 0] - ends[:, 1]).mean(axis=1)
    inside_starts = np.abs(starts[:, 0] - starts[:, 1]).mean(axis=1)
    # A tenth of a grey level keeps flat, noiseless images from dividing by zero.
    return across / ((inside_ends[:, None] + inside_starts[None]) / 2 + 0.1)


def _detrend(lines: np.ndarray) -> np.ndarray:
    return lines - gaussian_filter1d(lines, SMOOTHING, axis=1)


def _centre(lines: np.ndarray) -> np.ndarray:
    return lines - lines.mean(axis=1, keepdims=True)


def _correlation(ends: np.ndarray, starts: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(ends, axis=1)[:, None] * np.linalg.norm(starts, axis=1)[None]
    return ends @ starts.T / (norms + 1e-6)


def split_by_frame(frames: np.ndarray, kinds: list[str], fraction: float, seed: int) -> np.ndarray:
    """Choose validation images by whole frames, stratified by kind; bool (n,), True = validation.

    In each kind, frames come in random order (from `seed`). A frame is taken if it brings the number of images nearer
    to `fraction` of the kind. A frame's kind is that of most of its images. A kind with a single frame stays in
    training.
    """
    chosen = np.zeros(len(frames), bool)
    kind_of_frame = {}
    for frame in np.unique(frames):
        names, counts = np.unique([kinds[i] for i in np.flatnonzero(frames == frame)], return_counts=True)
        kind_of_frame[int(frame)] = str(names[np.argmax(counts)])
    for kind in sorted(set(kind_of_frame.values())):
        members = [frame for frame, name in kind_of_frame.items() if name == kind]
        sizes = {frame: int((frames == frame).sum()) for frame in members}
        wanted, taken = fraction * sum(sizes.values()), 0
        order = np.random.default_rng([seed, *kind.encode()]).permutation(members)
        for frame in order[: len(members) - 1]:
            if abs(taken + sizes[int(frame)] - wanted) < abs(taken - wanted):
                chosen |= frames == frame
                taken += sizes[int(frame)]
    return chosen
