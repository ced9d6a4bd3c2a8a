"""Read the pixels of a TIFF series with tifffile: only the pages, or the part of the file, that are asked for."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.formats.imagefile import clear_errors, pick

CODECS = "its compression needs imagecodecs: pip install 'nuclei-unet[codecs]'"


def read_pixels(path: Path, tif, series, axes: str, shape: tuple[int, ...], colours, **index: int) -> np.ndarray:
    """Return what lies at `index` of a series, an array of the other axes.

    Parameters
    ----------
    path : the file, for messages
    tif, series : tifffile's TiffFile, which is opened for as long as this takes, and one of its series
    axes, shape : of the series without axes of one entry; with colours, the last axis is theirs
    colours : (entries, 3) uint8 if values are to become colours, else None
    index : a number for each axis to fix, such as T=3

    Raises
    ------
    InputError : the file is cut short or damaged there, or its compression needs a package that is not installed
    """
    with clear_errors(path), _codecs(path), _opened(tif):
        array = _stored(path, tif, series, axes, shape, colours is not None, index)
    return array if colours is None else colours[array]


def _stored(path, tif, series, axes, shape, has_palette, index) -> np.ndarray:
    """Read what lies at `index`, as stored."""
    if has_palette:
        axes, shape = axes[:-1], shape[:-1]
    if series.dataoffset is not None and series.transform is None:
        # Uncompressed, one plane after the other: the operating system reads what is used.
        if series.dataoffset + math.prod(shape) * series.dtype.itemsize > tif.filehandle.size:
            raise InputError(f"{path}: the file is cut short")
        dtype = series.dtype.newbyteorder(tif.byteorder)
        stored = tif.filehandle.memmap_array(dtype, shape, series.dataoffset)
        return np.array(pick(stored, axes, index), dtype=series.dtype)
    outer = _page_axes(series, shape)
    for number in range(len(series)) if outer is None else ():
        _check_page(path, series[number])
    if outer is None:
        return np.ascontiguousarray(pick(series.asarray().reshape(shape), axes, index))
    chosen = [[index[axis]] if axis in index else range(size) for axis, size in zip(axes[:outer], shape, strict=False)]
    pages = []
    for place in product(*chosen):
        page = series[int(np.ravel_multi_index(place, shape[:outer])) if place else 0]
        _check_page(path, page)
        with _opened(page.parent):
            pages.append(pick(page.asarray().reshape(shape[outer:]), axes[outer:], index))
    free = [size for axis, size in zip(axes[:outer], shape, strict=False) if axis not in index]
    return np.stack(pages).reshape(*free, *pages[0].shape) if free else np.ascontiguousarray(pages[0])


def _page_axes(series, shape: tuple[int, ...]) -> int | None:
    """Return how many of the leading axes run over pages, the others lying within; None if it is not that simple."""
    within = math.prod(series.keyframe.shape)
    for outer in range(len(shape), -1, -1):
        if math.prod(shape[outer:]) == within and math.prod(shape[:outer]) == len(series) and series.transform is None:
            return outer
    return None


def _check_page(path: Path, page) -> None:
    """Refuse a page that is missing, or whose data lie beyond the end of the file.

    tifffile would fill a missing page with zeros, and a JPEG decoder what is missing of a tile with grey.
    """
    if page is None:
        raise InputError(f"{path}: a plane of the image is missing, here or in a file that belongs to it")
    ends = [at + count for at, count in zip(page.dataoffsets, page.databytecounts, strict=False) if count]
    if not ends or max(ends) > page.parent.filehandle.size:
        raise InputError(f"{path}: the file is cut short")


@contextmanager
def _opened(tif) -> Iterator[None]:
    """Open the file of a TiffFile again for a while: between reads no file stays open."""
    closed = tif.filehandle.closed
    if closed:
        tif.filehandle.open()
    try:
        yield
    finally:
        if closed:
            tif.filehandle.close()


@contextmanager
def _codecs(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if "imagecodecs" in str(error) and not isinstance(error, InputError) and _lacks_imagecodecs():
            raise InputError(f"{path}: {CODECS}") from None
        raise


def _lacks_imagecodecs() -> bool:
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return True
    return False
