"""Split a few annotated images into folds for cross-validation, and cut them where they are too few or too large."""

import itertools
from collections.abc import Hashable, Sequence

import numpy as np

from nuclei_unet.labels import renumber
from nuclei_unet.sample import ArraySample, Sample

MOST_FOLDS = 3
# px: of a larger image, the part of this size with the most nuclei is scored. It is trained on as a whole.
LARGEST_SCORED = 1024
LARGEST_SEEN = 2048  # px, of that part as the network sees it, where images are enlarged


def nuclei_in(labels: np.ndarray) -> int:
    """Return the number of nuclei in a label image."""
    return len(np.union1d(labels, 0)) - 1


def folds(groups: Sequence[Hashable], nuclei: Sequence[int], most: int = MOST_FOLDS) -> list[int]:
    """Return the number of each image's fold: at most `most`, and images of one group are in the same.

    `nuclei` has the number of nuclei of each image. The folds get about as many each, and none gets all: if fewer than
    two groups have nuclei, there is one fold.
    """
    sizes: dict[Hashable, int] = {}
    for group, count in zip(groups, nuclei, strict=True):
        sizes[group] = sizes.get(group, 0) + count
    filled = sum(size > 0 for size in sizes.values())
    load = [0] * min(filled, most) or [0]
    place = {}
    # The largest first, each to the fold with the fewest; `sorted` keeps the order of equal ones.
    for group in sorted(sizes, key=lambda group: -sizes[group]):
        place[group] = load.index(min(load))
        load[place[group]] += sizes[group]
    return [place[group] for group in groups]


def split(
    samples: Sequence[Sample], frames: Sequence[Hashable] | None = None
) -> tuple[list[Sample], list[tuple[np.ndarray, np.ndarray]]]:
    """Split images into folds; return pieces, and for each fold the numbers of its pieces and of all others.

    The pieces are the images, or the halves of an only one. `frames` says what each image is cut from. If there are
    annotations for one fold alone, the others are its own pieces.
    """
    pieces, groups = list(samples), list(range(len(samples)) if frames is None else frames)
    if len(pieces) == 1:
        pieces = halves(pieces[0])
        groups = list(range(len(pieces)))
    place = np.array(folds(groups, [nuclei_in(piece.labels) for piece in pieces]))
    if not place.any():
        return pieces, [(np.arange(len(pieces)), np.arange(len(pieces)))]
    return pieces, [(np.flatnonzero(place == fold), np.flatnonzero(place != fold)) for fold in range(place.max() + 1)]


def halves(sample: Sample) -> list[Sample]:
    """Return the two halves of an image, cut across its longer side.

    A nucleus under the cut is in both halves. If a half would have no nucleus that is whole, return the image alone.
    """
    image, labels = sample.image, sample.labels
    axis = int(labels.shape[1] > labels.shape[0])
    cut_image, cut_labels = image.shape[axis] // 2, labels.shape[axis] // 2
    if not cut_image or not cut_labels:
        return [sample]
    truths = np.split(labels, [cut_labels], axis)
    numbers = [set(np.unique(truth)) - {0} for truth in truths]
    if not numbers[0] - numbers[1] or not numbers[1] - numbers[0]:
        return [sample]
    parts = zip(np.split(image, [cut_image], axis), truths, strict=True)
    return [
        ArraySample(f"{sample.image_id}/{number}", sample.split, sample.image_type, part, renumber(truth))
        for number, (part, truth) in enumerate(parts, start=1)
    ]


def scored_part(sample: Sample) -> Sample:
    """Return what is scored of an image: itself, or of a large one the part with the most nuclei."""
    image, labels = sample.image, sample.labels
    height, width = labels.shape
    factors = image.shape[0] / height, image.shape[1] / width
    longest = min(LARGEST_SCORED, max(int(LARGEST_SEEN / max(factors)), 1))
    if max(height, width) <= longest:
        return sample
    step = -(-longest // 4)
    tops, lefts = (range(0, max(side - longest, 0) + step, step) for side in (height, width))

    def window(top: int, left: int, factors: tuple[float, float] = (1, 1)) -> tuple[slice, ...]:
        starts = min(top, max(height - longest, 0)), min(left, max(width - longest, 0))
        sides = zip(starts, (height, width), factors, strict=True)
        return tuple(slice(round(start * f), round(min(start + longest, side) * f)) for start, side, f in sides)

    best = max(itertools.product(tops, lefts), key=lambda place: nuclei_in(labels[window(*place)]))
    # The image may be of another size.
    there = image[window(*best, factors)]
    return ArraySample(sample.image_id, sample.split, sample.image_type, there, renumber(labels[window(*best)]))
