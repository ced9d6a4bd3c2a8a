"""Kaggle's run-length code, and the solution CSV that is written in it.

A nucleus is a list of `start length` pairs. Pixels are numbered from 1, down the columns: 1 is (row 0, column 0), 2
is (row 1, column 0). Source: the evaluation page of the 2018 Data Science Bowl.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from nuclei_unet.errors import InputError
from nuclei_unet.png import MAX_PIXELS, MAX_SIDE

COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "Usage")


def decode_run_lengths(code: str, height: int, width: int, where: str) -> np.ndarray:
    """Return the mask, bool (height, width), of one nucleus. An empty code is an empty mask.

    Raises InputError that starts with `where` if the code is malformed, leaves the image or covers a pixel twice.
    """
    flat = np.zeros(height * width, bool)
    flat[_pixels(code, height * width, where)] = True
    return np.ascontiguousarray(flat.reshape(width, height).T)


def encode_run_lengths(mask: np.ndarray) -> str:
    """Return the run-length code of a mask (H, W); every non-zero pixel is part of the nucleus."""
    flat = np.concatenate([[False], np.asarray(mask).T.reshape(-1) != 0, [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])  # rising and falling in turn
    starts, ends = edges[::2], edges[1::2]
    return " ".join(f"{start + 1} {end - start}" for start, end in zip(starts, ends, strict=True))


def read_solution(path: Path) -> dict[str, np.ndarray]:
    """Read a solution CSV: image id -> label image, uint16 (H, W), 0 = background, nuclei 1, 2, … in row order.

    A pixel of two nuclei goes to the earlier row. A row with an empty code means an image without nuclei.
    Raises InputError that names file, line and fault.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV table: {' '.join(str(error).split())}") from None
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"{path}: column {', '.join(missing)} is missing; found {', '.join(table.columns)[:200]}")

    flat: dict[str, np.ndarray] = {}  # column-major, as the code counts
    shapes: dict[str, tuple[int, int]] = {}
    counts: dict[str, int] = {}
    rows = table[["ImageId", "EncodedPixels", "Height", "Width"]].itertuples(index=False, name=None)
    for line, (image_id, code, height, width) in enumerate(rows, start=2):
        where = f"{path}, line {line}"
        shape = (_side(height, f"{where}, Height"), _side(width, f"{where}, Width"))
        if shape[0] * shape[1] > MAX_PIXELS:
            raise InputError(f"{where}: {shape[0]} x {shape[1]} pixels; at most {MAX_PIXELS:,}")
        if not image_id:
            raise InputError(f"{where}: ImageId is empty")
        if shapes.setdefault(image_id, shape) != shape:
            raise InputError(f"{where}: {shape} pixels, but {shapes[image_id]} in an earlier row of this image")
        labels = flat.setdefault(image_id, np.zeros(shape[0] * shape[1], np.uint16))
        pixels = _pixels(str(code), labels.size, where)
        if pixels.size == 0:
            continue
        counts[image_id] = counts.get(image_id, 0) + 1
        if counts[image_id] > np.iinfo(np.uint16).max:
            raise InputError(f"{where}: more nuclei in one image than {np.iinfo(np.uint16).max:,}")
        labels[pixels[labels[pixels] == 0]] = counts[image_id]
    return {key: np.ascontiguousarray(labels.reshape(shapes[key][::-1]).T) for key, labels in flat.items()}


def _side(text: str, where: str) -> int:
    number = _whole_numbers([text], where)[0]
    if not 1 <= number <= MAX_SIDE:
        raise InputError(f"{where}: {number} is outside 1 to {MAX_SIDE:,}")
    return int(number)


def _whole_numbers(texts: list[str], where: str) -> np.ndarray:
    try:
        return np.array([int(text) for text in texts], np.int64)
    except (ValueError, OverflowError):
        raise InputError(f"{where}: not a list of whole numbers: {' '.join(texts)[:60]!r}") from None


def _pixels(code: str, size: int, where: str) -> np.ndarray:
    """Return the numbers, from 0 and down the columns, of a nucleus' pixels in an image of `size` pixels."""
    numbers = _whole_numbers(code.split(), where)
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
    # Pixel k of run i is starts[i] + k: count through all runs, and shift each run to its start.
    done = np.cumsum(lengths) - lengths
    return np.repeat(starts - done, lengths) + np.arange(lengths.sum())
