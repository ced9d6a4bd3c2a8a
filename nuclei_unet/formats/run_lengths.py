"""Kaggle's run-length code.

A nucleus is a list of `start length` pairs. Pixels are numbered from 1, down the columns: 1 is (row 0, column 0), 2
is (row 1, column 0). Source: the evaluation page of the 2018 Data Science Bowl.
"""

from collections.abc import Iterator

import numpy as np

from nuclei_unet.errors import InputError


def encode_run_lengths(mask: np.ndarray) -> str:
    """Return the run-length code of a mask (H, W); every non-zero pixel is part of the nucleus."""
    return encode_labels(np.asarray(mask) != 0).get(1, "")


def encode_labels(labels: np.ndarray) -> dict[int, str]:
    """Return label -> run-length code of all nuclei of a label image (H, W), in ascending order of labels."""
    runs = {number: np.stack([starts + 1, lengths], axis=1) for number, starts, lengths in runs_of(labels)}
    return {number: " ".join(map(str, pairs.ravel().tolist())) for number, pairs in runs.items()}


def runs_of(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield label, starts and lengths of the runs of each nucleus, in ascending order of labels.

    Starts count from 0 down the columns, int64, ascending. All nuclei take one pass over the image.
    """
    flat = np.asarray(labels).T.ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [flat.size]])
    order = np.argsort(flat[starts], kind="stable")
    order = order[flat[starts][order] != 0]
    starts, lengths = starts[order], (ends - starts)[order]
    numbers, firsts = np.unique(flat[starts], return_index=True)
    bounds = [*firsts.tolist(), len(starts)]
    for number, first, last in zip(numbers.tolist(), bounds, bounds[1:], strict=False):
        yield number, starts[first:last], lengths[first:last]


def whole_numbers(texts: list[str], where: str) -> np.ndarray:
    """Return texts as int64. Raises InputError that starts with `where` for any that is no whole number."""
    try:
        return np.array([int(text) for text in texts], np.int64)
    except (ValueError, OverflowError):
        raise InputError(f"{where}: not a list of whole numbers: {' '.join(texts)[:60]!r}") from None


def pixels_of(code: str, size: int, where: str) -> np.ndarray:
    """Return the numbers, from 0 and down the columns, of a nucleus' pixels in an image of `size` pixels.

    Raises InputError that starts with `where` if the code is malformed, leaves the image or covers a pixel twice.
    """
    numbers = whole_numbers(code.split(), where)
    if numbers.size % 2:
        raise InputError(f"{where}: {numbers.size} numbers, but run lengths are pairs of start and length")
    starts, lengths = numbers[::2], numbers[1::2]
    if np.any(starts < 1):
        raise InputError(f"{where}: a run starts at {starts.min()}; the first pixel is 1")
    if np.any(lengths < 1):
        raise InputError(f"{where}: a run has length {lengths.min()}")
    # Written so that no sum can overflow int64.
    beyond = (lengths > size) | (starts > size - lengths + 1)
    if np.any(beyond):
        start, length = starts[beyond][0], lengths[beyond][0]
        raise InputError(f"{where}: run {start} {length} ends after the image's {size} pixels")
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order] - 1, lengths[order]
    overlap = np.flatnonzero(starts[1:] < starts[:-1] + lengths[:-1])
    if overlap.size:
        raise InputError(f"{where}: the run that starts at {starts[overlap[0] + 1] + 1} overlaps another one")
    return ranges(starts, lengths)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the numbers of all runs, one run after the other; run i is starts[i] + 0, 1 ... lengths[i] - 1."""
    # Count through all runs, and shift each run to its start.
    done = np.cumsum(lengths) - lengths
    return np.repeat(starts - done, lengths) + np.arange(lengths.sum())
