"""Read TIFF, ImageJ TIFF and OME-TIFF files with tifffile, plane by plane."""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffFile

from nuclei_unet.errors import InputError
from nuclei_unet.formats.imagefile import (
    MICROMETRES,
    ImageFile,
    channel_names,
    clear_errors,
    micrometres,
    pick,
    scene_names,
    square,
)

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
    with clear_errors(path, "is not a TIFF that can be read"), listening(path), TiffFile(path) as tif:
        description = tif.pages.first.description if len(tif.pages) else ""
        if "<OME" in description[:2000] and not tif.is_ome:
            raise InputError(f"{path}: its OME metadata are cut short; save it again, as OME-TIFF")
        kept = [series for series in tif.series if math.prod(series.shape)]
        if not kept:
            raise InputError(f"{path}: a TIFF without an image; it may be cut short")
        about = ome_images(tif.ome_metadata, [series.shape for series in kept], [series.axes for series in kept])
        main = [
            (series, meta)
            for series, meta in zip(kept, about, strict=True)
            if not BESIDE.fullmatch(series.name) and not (series.kind != "ome" and series.keyframe.is_reduced)
        ] or list(zip(kept, about, strict=True))
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
    axes = ""
    shape: tuple[int, ...] = ()
    for axis, size in zip(full_axes, full_shape, strict=True):
        if size > 1 or axis in kept:
            axes, shape = axes + axis, (*shape, size)
    keyframe, colours = series.keyframe, None
    axes = _colour_axes(axes, shape, keyframe, path)
    if given and axes not in ("YX", "YXS", "YXC"):
        if len(given) != len(axes):
            raise InputError(
                f"{path}: its shape {shape} has {len(shape)} dimensions, which the axes {given} do not fit"
            )
        axes = given
    if not set(axes) <= set("TCZYXS") or len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes):
        said = f"{path}: the file does not say what its {len(shape)} dimensions {shape} are"
        raise InputError(f"{said}; {_choices(shape)}")
    if keyframe.photometric == PALETTE and axes == "YX" and not (tif.is_imagej or tif.is_ome):
        # Like libtiff: only the higher byte of each value counts.
        colours = (np.asarray(keyframe.colormap).T >> 8).astype(np.uint8)
        axes, shape = "YXS", (*shape, 3)
    if "C" in axes and not any(names):
        names = plane_labels(tif, full_axes, full_shape)
    load = partial(read_pixels, path, tif, series, axes, shape, colours)
    dtype = np.dtype(series.dtype if colours is None else colours.dtype)
    channels, size = channel_names(axes, shape, names), pixel_size(tif, series, meta)
    return ImageFile(path, scene, axes, shape, dtype, channels, *size, load)


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
    """Return what the axes could be for an array of this shape, in words."""
    choices = {3: ["ZYX", "TYX", "CYX"], 4: ["TZYX", "TCYX", "ZCYX", "CZYX"], 5: ["TZCYX", "TCZYX"]}.get(len(shape))
    if choices is None:
        return "give the axes, a letter of T, C, Z, Y, X and S (colour samples) for each"
    if len(shape) == 3 and shape[0] in (3, 4):
        choices.append("SYX (colours)")
    if len(shape) == 3 and shape[2] <= 4:
        choices = ["YXC", "YXS (colours)"]
    return f"give the axes as {', '.join(choices[:-1])} or {choices[-1]}"


def _palette(keyframe) -> np.ndarray:
    """Return a page's colour table as (entries, 3) uint8; like libtiff, only the higher byte of each value counts."""
    return (np.asarray(keyframe.colormap).T >> 8).astype(np.uint8)


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Keep what tifffile logs off the terminal, and refuse the file if it is serious."""
    said: list[str] = []
    logger = logging.getLogger("tifffile")
    listener = logging.Handler()
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    before = logger.propagate, logger.disabled, logger.level
    # Whatever the process around us did to all loggers, ours has to hear.
    logger.propagate, logger.disabled = False, False
    logger.setLevel(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate, logger.disabled = before[:2]
        logger.setLevel(before[2])
        # Also instead of an exception: what was logged first is often its cause.
        for line in filter(SERIOUS.search, said):
            # tifffile starts with the name of the object.
            line = re.sub(r"<[^>]*> ", "", line)
            raise InputError(f"{path}: the file is damaged or cut short ({line[:200]})") from None


# TIFF's resolution is often that of a printer: 72, 96, 300, 600 or 1,200 dots per inch, that is 353 to 21 µm, which
# means nothing. A nucleus is about 10 µm wide, so no image in which one can be outlined has pixels above 5 µm; and
# light does not resolve 0.01 µm.
PLAUSIBLE = (0.01, 5.0)
RESOLUTION_UNITS = {2: "inch", 3: "cm"}


class OmeImage(NamedTuple):
    """What an Image element says: the names of its channels, and width and height of a pixel in micrometres."""

    channels: list[str | None]
    width: float | None
    height: float | None


def ome_images(xml: str | None, shapes: Sequence[tuple], axes: Sequence[str]) -> list[OmeImage | None]:
    """Return what an OME-XML says of each series, given their shapes and axes; None without an OME-XML.

    tifffile leaves out images without data, so each series is matched to the next image of its width and height.
    Source: https://docs.openmicroscopy.org/ome-model/6.3.1/
    """
    if xml is None:
        return [None] * len(shapes)
    elements = iter(ElementTree.fromstring(xml).iterfind("{*}Image/{*}Pixels"))
    metas = []
    for shape, letters in zip(shapes, axes, strict=True):
        size = [str(shape[letters.index(letter)]) for letter in "XY"]
        metas.append(next((_ome_image(one) for one in elements if [one.get("SizeX"), one.get("SizeY")] == size), None))
    return metas


def _ome_image(pixels: ElementTree.Element) -> OmeImage:
    names = [channel.get("Name") or channel.get("Fluor") for channel in pixels.iterfind("{*}Channel")]
    sizes = ((pixels.get(f"PhysicalSize{axis}") or "nan", pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XY")
    return OmeImage(names, *(micrometres(float(length), unit) for length, unit in sizes))


def plane_labels(tif, axes: str, shape: tuple[int, ...]) -> list[str | None]:
    """Return the channels' names from the labels that ImageJ keeps for each plane; empty without them."""
    labels = (tif.imagej_metadata or {}).get("Labels") if tif.is_imagej else None
    outer = axes[: axes.index("Y")] if "Y" in axes else ""
    planes = shape[: len(outer)]
    # Channels run fastest in ImageJ's files.
    if not outer.endswith("C") or not isinstance(labels, list) or len(labels) != math.prod(planes):
        return []
    return [str(label) for label in labels[: planes[-1]]]


def pixel_size(tif, series, meta: OmeImage | None) -> tuple[float | None, str]:
    """Return a pixel's side in micrometres and where it is from: OME, then ImageJ, then TIFF's own resolution.

    A resolution is believed only if it gives 0.01 to 5 µm; otherwise it is a printer's or a screen's.
    """
    if meta is not None and meta.width is not None and meta.height is not None:
        return square((meta.width, meta.height), "OME metadata")
    per_unit = [_rational(series.keyframe.tags.valueof(tag)) for tag in (282, 283)]
    if None in per_unit:
        return None, "unknown"
    unit = str((tif.imagej_metadata or {}).get("unit", "")) if tif.is_imagej else ""
    source = "ImageJ metadata"
    # ImageJ takes inches from dots per inch.
    if micrometres(1, unit) in (None, MICROMETRES["inch"]):
        number = series.keyframe.tags.valueof(296, 2)
        unit, source = RESOLUTION_UNITS.get(int(number), ""), "TIFF resolution"
    if source == "ImageJ metadata" and per_unit == [1, 1]:
        # What is left when a program wrote a unit and no scale.
        return None, f"unknown: exactly 1 {unit} in ImageJ metadata is more likely no scale than one"
    sides = [micrometres(1 / value, unit) for value in per_unit]
    if None in sides or (
        source == "TIFF resolution" and not all(PLAUSIBLE[0] <= side <= PLAUSIBLE[1] for side in sides)
    ):
        return None, "unknown"
    return square(sides, source)


def _rational(value) -> float | None:
    try:
        number = value[0] / value[1] if isinstance(value, tuple) else float(value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def read_pixels(path: Path, tif, series, axes: str, shape: tuple[int, ...], colours, **index: int) -> np.ndarray:
    """Return what lies at `index`, such as T=3, of a series: an array of the other axes.

    `axes` and `shape` are without axes of one entry; with colours, (entries, 3) uint8, the last axis is theirs. Raises
    InputError if the file is cut short or damaged there, or its compression needs a package that is not installed.
    """
    with clear_errors(path), _opened(tif):
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
    # How many of the leading axes run over pages, the others lying within; None if it is not that simple.
    size = len(series), math.prod(series.keyframe.shape)
    fits = [at for at in range(len(shape), -1, -1) if (math.prod(shape[:at]), math.prod(shape[at:])) == size]
    outer = fits[0] if fits and series.transform is None else None
    if outer is None:
        for number in range(len(series)):
            _check_page(path, series[number])
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
