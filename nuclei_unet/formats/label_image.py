"""What counts as a label image in users' files, and how long it may be."""

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

    Parameters
    ----------
    labels : (H, W), or with further dimensions of length 1. Any integers; floats if all are whole, as some tools write
    where : the file in error messages

    Raises
    ------
    InputError : other dimensions (a stack, a colour image), other dtypes, negative numbers, fractions, or numbers above
        4,294,967,295
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
