"""Read TIFF, ImageJ TIFF and OME-TIFF files with tifffile, plane by plane."""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.formats.imagefile import ImageFile, channel_names, clear_errors, scene_names
from nuclei_unet.formats.tiff_metadata import ome_images, pixel_size, plane_labels
from nuclei_unet.formats.tiff_pixels import read_pixels

# What tifffile only logs, but that would change which pixels are read, or how many.
SERIOUS = re.compile(r"invalid (page|value) offset|invalid offset to|invalid or corrupted|series raised|discontiguous")
# Pictures that slide scanners and microscopes store beside the image.
BESIDE = re.compile(r"(thumbnail|label|macro|overview|map)( image)?", re.IGNORECASE)
# PhotometricInterpretation (TIFF 6.0, page 37).
GREY, RGB, PALETTE, YCBCR = (0, 1), 2, 3, 6


def open_tiff(path: Path, axes: str | None) -> list[ImageFile]:
    """Return the images of a TIFF file; of a pyramid, its full resolution.

    Each series of an OME-TIFF is an image. Thumbnails, labels and overviews of slide scanners are left out. An OME
    image that is spread over several files belongs to the one with its first plane; the others return an empty list.
    Grey values are those stored, also if 0 is shown white or a colour table is used for display (ImageJ, OME); other
    colour tables become the colours that they mean.

    `axes` names the dimensions of series whose metadata do not, and replaces the names of others, except for (H, W)
    and for images stored pixel by pixel with all samples, which are never in doubt.

    Raises InputError if the file is damaged or cut short, if its colours are not grey, RGB or YCbCr, and if the axes
    are not known or `axes` does not fit; it lists the choices.
    """
    from tifffile import TiffFile

    with clear_errors(path, "is not a TIFF that can be read"), listening(path), TiffFile(path) as tif:
        description = tif.pages.first.description if len(tif.pages) else ""
        if "<OME" in description[:2000] and not tif.is_ome:
            raise InputError(f"{path}: its OME metadata are cut short; save it again, as OME-TIFF")
        found = [series for series in tif.series if math.prod(series.shape)]
        if not found:
            raise InputError(f"{path}: a TIFF without an image; it may be cut short")
        about = ome_images(tif.ome_metadata, [series.shape for series in found], [series.axes for series in found])
        main = [
            (series, meta)
            for series, meta in zip(found, about, strict=True)
            if not BESIDE.fullmatch(series.name) and not (series.kind != "ome" and series.keyframe.is_reduced)
        ] or list(zip(found, about, strict=True))
        # Of an image in several files, the planes that are missing here are missing in all.
        own = [item for item in main if next(page for page in item[0] if page is not None).parent is tif]
        return [
            _image(path, tif, series, meta, scene, axes)
            for (series, meta), scene in zip(own, scene_names(len(own)), strict=True)
        ]


def _image(path, tif, series, meta, scene, given) -> ImageFile:
    full_axes, full_shape = series.get_axes(squeeze=False), series.get_shape(squeeze=False)
    names = meta.channels if meta else []
    # An only channel matters if it has a name.
    kept = "YX" + "C" * bool(any(names))
    axes, shape = "", ()
    for axis, size in zip(full_axes, full_shape, strict=True):
        if size > 1 or axis in kept:
            axes, shape = axes + axis, (*shape, size)
    keyframe, colours = series.keyframe, None
    axes = _colour_axes(axes, shape, keyframe, path)
    if given and axes not in ("YX", "YXS", "YXC"):
        if len(given) != len(axes):
            raise InputError(
                f"{path}: its shape is {shape}, {len(shape)} dimensions, which --axes {given} does not fit"
            )
        axes = given
    if not set(axes) <= set("TCZYXS") or len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes):
        raise InputError(
            f"{path}: the file does not say what its {len(shape)} dimensions {shape} are: {_choices(shape)}"
        )
    if keyframe.photometric == PALETTE and axes == "YX" and not (tif.is_imagej or tif.is_ome):
        colours = _palette(keyframe)
        axes, shape = "YXS", (*shape, 3)
    if "C" in axes and not any(names):
        names = plane_labels(tif, full_axes, full_shape)
    load = partial(read_pixels, path, tif, series, axes, shape, colours)
    dtype = np.dtype(series.dtype if colours is None else colours.dtype)
    return ImageFile(
        path, scene, axes, shape, dtype, channel_names(axes, shape, names), *pixel_size(tif, series, meta), load
    )


def _colour_axes(axes: str, shape: tuple[int, ...], keyframe, path: Path) -> str:
    """Return the axes with S for colours only: samples of a grey image are channels."""
    photometric = int(keyframe.photometric)
    if photometric not in (*GREY, RGB, PALETTE, YCBCR) or (photometric == YCBCR and keyframe.compression == 1):
        raise InputError(f"{path}: its colours are {keyframe.photometric.name}; save it as grey or RGB")
    samples = dict(zip(axes, shape, strict=True)).get("S", 1)
    grey_alpha = photometric in GREY and samples == 2 and keyframe.extrasamples and keyframe.extrasamples[0] in (1, 2)
    if samples == 1 or grey_alpha or (photometric not in GREY and samples in (3, 4)):
        return axes
    return axes.replace("S", "?" if "C" in axes else "C")


def _choices(shape: tuple[int, ...]) -> str:
    """Return what --axes could be for an array of this shape, in words."""
    choices = {
        3: ["ZYX", "TYX", "CYX"],
        4: ["TZYX", "TCYX", "ZCYX", "CZYX"],
        5: ["TZCYX", "TCZYX"],
    }.get(len(shape))
    if choices is None:
        return "give --axes, a letter of T, C, Z, Y, X and S (colour samples) for each"
    if len(shape) == 3 and shape[0] in (3, 4):
        choices.append("SYX (colours)")
    if len(shape) == 3 and shape[2] <= 4:
        choices = ["YXC", "YXS (colours)"]
    return f"give --axes {', '.join(choices[:-1])} or {choices[-1]}"


def _palette(keyframe) -> np.ndarray:
    """Return a page's colour table as (entries, 3) uint8; like libtiff, only the higher byte of each value counts."""
    return (np.asarray(keyframe.colormap).T >> 8).astype(np.uint8)


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Keep what tifffile logs off the terminal, and refuse the file if it is serious."""
    said: list[str] = []
    logger = logging.getLogger("tifffile")
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())
    before = logger.propagate, logger.disabled, logger.level
    # Whatever the process around us did to all loggers, ours has to hear.
    logger.propagate, logger.disabled = False, False
    logger.setLevel(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield
    except Exception:
        # What was logged first is often the cause.
        _refuse_if_serious(path, said)
        raise
    finally:
        logger.removeHandler(listener)
        logger.propagate, logger.disabled = before[:2]
        logger.setLevel(before[2])
    _refuse_if_serious(path, said)


def _refuse_if_serious(path: Path, said: list[str]) -> None:
    for line in said:
        if SERIOUS.search(line):
            # tifffile starts with the name of the object.
            line = re.sub(r"<[^>]*> ", "", line)
            raise InputError(f"{path}: the file is damaged or cut short ({line[:200]})") from None
