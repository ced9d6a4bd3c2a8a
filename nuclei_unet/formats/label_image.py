"""What readers and writers of label images share: what is one, the numbers of nuclei, and files of JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nuclei_unet.errors import InputError

# 8 GB of memory. A larger image should be predicted and converted in pieces.
MAX_PIXELS = 2_000_000_000
MAX_LABEL = 2**32 - 1


def check_size(shape: tuple[int, ...], where: str) -> None:
    """Raise InputError that starts with `where` for a height or width below 1, or more than two billion pixels."""
    if len(shape) != 2 or min(shape) < 1 or shape[0] * shape[1] > MAX_PIXELS:
        size = " x ".join(map(str, shape))
        raise InputError(f"{where}: {size} pixels; a label image is height x width, at most {MAX_PIXELS:,} in all")


def checked(labels: np.ndarray, where: str) -> np.ndarray:
    """Return a label image as uint16, or as uint32 if a label is above 65,535; the numbers stay as they are.

    `labels` are (H, W), or with further dimensions of length 1: integers, or floats if all are whole, as some tools
    write. Raises InputError that starts with `where` for other dimensions (a stack, a colour image), other dtypes,
    negative numbers, fractions, or numbers above 4,294,967,295.
    """
    labels = np.asarray(labels)
    shape = labels.shape
    if labels.ndim > 2:
        labels = labels.squeeze()
        if labels.ndim < 2:  # an image of one row or column
            labels = labels.reshape(shape[-2:])
    check_size(labels.shape, f"{where}: not a label image")
    if labels.dtype.kind not in "iuf":
        raise InputError(f"{where}: not a label image, its values are {labels.dtype}")
    # NaN fails every comparison, so it ends here too.
    low, high = labels.min(), labels.max()
    if not (low >= 0 and high <= MAX_LABEL):
        raise InputError(f"{where}: labels from {low} to {high}; they must be from 0 to {MAX_LABEL:,}")
    whole = labels.astype(np.uint16 if high < 2**16 else np.uint32, copy=False)
    if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
        raise InputError(f"{where}: not a label image, it holds fractions")
    return np.ascontiguousarray(whole)


def instances(labels: np.ndarray, where: str) -> np.ndarray:
    """Return a label image. Raises InputError that starts with `where` if it is a mask: all nuclei have one number."""
    number = int(labels.max())
    if number in (1, 255, 65535) and np.isin(labels, (0, number)).all():
        from nuclei_unet.labels import components  # takes 0.2 s

        pieces = int(components(labels > 0, connectivity=8).max())
        # One nucleus may lie in two pieces.
        if pieces > 2:
            raise InputError(f"{where}: a mask, {pieces} pieces have the number {number}; give each nucleus its own")
    return labels


def numbered(names: Sequence[str]) -> list[int]:
    """Return a label for each name of a nucleus: the names if all are different whole numbers, otherwise 1, 2 ...

    So a nucleus keeps its number through a file that this library wrote, and any other file gets one.
    """
    numbers = [int(name) if name.isascii() and name.isdigit() and len(name) < 20 else 0 for name in names]
    own = len(set(numbers)) == len(names) and all(0 < number <= MAX_LABEL for number in numbers)
    return numbers if own else list(range(1, len(names) + 1))


def read_json(path: Path, largest: int) -> Any:
    """Return what a JSON file holds. Raises InputError: no such file, more than `largest` bytes, or no JSON."""
    try:
        if path.stat().st_size > largest:
            raise InputError(f"{path}: larger than {largest / 2**30:.0f} GiB")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
