"""From an image of any number of dimensions to the planes that are segmented one by one."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.formats.imagefile import ImageFile

# Samples of a plane with all its channels. A scan of 30,000 x 30,000 pixels with 4 channels fits; the limit keeps a
# damaged header from claiming all memory.
MAX_SAMPLES = 2**32
PROJECTIONS = ("max", "mean")
# Channels that show nuclei: stains of DNA, as microscopes name them (H3342 and H3258 are Zeiss's Hoechst 33342 and
# 33258), and histone H2B with a fluorescent protein.
NUCLEAR = re.compile(r"dapi|hoechst|nuclei|nucleus|nuclear|\bdna\b|h2b|draq5|\bh3(3?342|3?258)\b", re.IGNORECASE)
COLOURS = ("red", "green", "blue", "alpha")


@dataclass(frozen=True)
class Plane:
    """One plane: what is segmented and saved as one label image."""

    suffix: str  # for the names of its files: empty if the image has one plane, else such as _scene0_t003_z012
    channel: str  # the name of the channel that is segmented; empty for grey and colour images without names
    channels: tuple[str, ...]  # the names of all channels; empty for grey and colour images without them
    # Returns what is segmented, (H, W) or (H, W, 3 or 4), and all channels: (H, W), (H, W, C) or (H, W, 3 or 4).
    read: Callable[[], tuple[np.ndarray, np.ndarray]]


def planes(image: ImageFile, channel: str | int | None = None, project: str | None = None) -> list[Plane]:
    """Return the planes of an image, in the order of its axes T and Z. Pixels are read when a plane is.

    `channel` is a number from 0, or a name, in any case; a number that is none of the channels' is taken as a name. A
    part of a name is enough if no other channel has it. By default the only one, else the one whose name says that it
    shows nuclei: DAPI, Hoechst, nuclei, DNA, H2B, DRAQ5. Colour images are segmented whole by default; their channels
    are red, green and blue.

    `project` is None for each plane by itself; max or mean: one plane for a stack along Z, the highest or the mean
    value of each pixel, for each time point and channel; for a time series without Z, one for all time points. The mean
    is float32 (float64 for float64).

    Raises InputError for no such channel, or several and none clear by its name: then it lists them; more than 2**32
    values in a plane with all its channels; no pixels; true/false or complex values; axes that cannot be read.
    """
    _check(image)
    if project not in (None, *PROJECTIONS):
        raise InputError(f"projection {project}: give {' or '.join(PROJECTIONS)}")
    number = choose_channel(image, channel)
    sizes = image.sizes
    over = next((axis for axis in "ZT" if sizes.get(axis, 1) > 1), None) if project else None
    kept = [axis for axis in image.axes if axis in "TZ" and axis != over]
    kept.sort()  # T, then Z
    scene = f"_{image.scene}" if image.scene else ""
    result = []
    for place in product(*(range(sizes[axis]) for axis in kept)):
        index = dict(zip(kept, place, strict=True))
        parts = [f"_{axis.lower()}{at:0{len(str(sizes[axis] - 1))}}" for axis, at in index.items() if sizes[axis] > 1]
        name = "" if number is None else (image.channels or COLOURS)[number]
        result.append(Plane(scene + "".join(parts), name, image.channels, _reader(image, index, over, project, number)))
    return result


def _check(image: ImageFile) -> None:
    if set(image.axes) - set("TCZYXS") or not {"Y", "X"} <= set(image.axes) or len(set(image.axes)) < len(image.axes):
        raise InputError(f"{image.name}: has the axes {image.axes}; only T, C, Z, Y, X and S can be read")
    if not math.prod(image.shape):
        raise InputError(f"{image.name}: has no pixels, its shape is {image.shape}")
    if image.dtype.kind == "b":
        raise InputError(f"{image.name}: has true/false values; that is a mask, not an image")
    if image.dtype.kind not in "uif":
        raise InputError(f"{image.name}: has values of type {image.dtype}; only whole and real numbers can be read")
    samples = math.prod(size for axis, size in image.sizes.items() if axis not in "TZ")
    if samples > MAX_SAMPLES:
        raise InputError(f"{image.name}: {samples:,} values in a plane; at most {MAX_SAMPLES:,}")
    if image.sizes.get("S", 3) not in (1, 2, 3, 4):
        raise InputError(f"{image.name}: pixels of {image.sizes['S']} samples; colours have up to 4")


def choose_channel(image: ImageFile, channel: str | int | None) -> int | None:
    """Return the number of the channel to segment; None for all that the plane has. Raises InputError; see `planes`."""
    has_colours = "C" not in image.axes and image.sizes.get("S", 1) >= 3
    names = COLOURS[: image.sizes["S"]] if has_colours else image.channels or ("0",)
    listed = ", ".join(f"{number} {name}" if name != str(number) else name for number, name in enumerate(names))
    if channel is not None:
        wanted = str(channel).strip().casefold()
        if wanted.isdecimal() and int(wanted) < len(names):
            fitting = [int(wanted)]
        else:
            lower = [name.casefold() for name in names]
            fitting = [number for number, name in enumerate(lower) if name == wanted]
            fitting = fitting or [number for number, name in enumerate(lower) if wanted and wanted in name]
        if len(fitting) != 1:
            raise InputError(
                f"{image.name}: {'several channels' if fitting else 'no channel'} {channel}; it has {listed}"
            )
    elif has_colours or len(names) == 1:
        fitting = [0]
    else:
        fitting = [number for number, name in enumerate(names) if NUCLEAR.search(name)]
        if len(fitting) != 1:
            said = "the names of several channels say" if fitting else "no channel's name says"
            raise InputError(f"{image.name}: {said} that it shows nuclei; choose a channel: {listed}")
    if "C" in image.axes:
        return fitting[0]
    return fitting[0] if has_colours and channel is not None else None


def _reader(image: ImageFile, index: dict, over: str | None, project: str | None, number: int | None):
    left = "".join(axis for axis in image.axes if axis not in index and axis != over)
    # Channels last; of colours in channels, a channel first.
    order = [letter for letter in ("CYXS" if "S" in left else "YXC") if letter in left]

    def read() -> tuple[np.ndarray, np.ndarray]:
        if over is None:
            array = image.load(**index)
        else:
            stack = (image.load(**index, **{over: at}) for at in range(image.sizes[over]))
            array = _project(stack, project, image.sizes[over])
        everything = array.transpose([left.index(axis) for axis in order])
        if "C" in left and "S" in left:
            everything = everything[number]
            chosen = everything
        else:
            chosen = everything if number is None else everything[..., number]
        return _grey(chosen, left), _grey(everything, left)

    return read


def _grey(array: np.ndarray, axes: str) -> np.ndarray:
    """Return grey with alpha as grey."""
    return array[..., 0] if "S" in axes and array.ndim == 3 and array.shape[2] < 3 else array


def _project(stack: Iterator[np.ndarray], how: str, count: int) -> np.ndarray:
    """Return the highest or mean value along a stack, holding two planes at a time."""
    result = next(stack)
    if how == "max":
        for plane in stack:
            result = np.maximum(result, plane)
        return result
    dtype = np.float64 if result.dtype == np.float64 else np.float32
    total = result.astype(np.float64)
    for plane in stack:
        total += plane
    return (total / count).astype(dtype)
