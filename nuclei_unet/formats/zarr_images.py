"""Read OME-Zarr images with zarr: NGFF 0.1 to 0.5, Zarr versions 2 and 3."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.formats.imagefile import (
    ImageFile,
    channel_names,
    clear_errors,
    library,
    micrometres,
    pick,
    scene_names,
    square,
)

# A folder with one of these is a Zarr group or array, whatever its name.
DAMAGED = "is not an OME-Zarr that can be read"
MARKS = (".zgroup", ".zattrs", ".zarray", "zarr.json")


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr group or array rather than a folder of images."""
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / mark).is_file() for mark in MARKS))


def open_zarr(path: Path) -> list[ImageFile]:
    """Return the images of an OME-Zarr folder, at full resolution; channels and pixel size are from its metadata.

    A folder that Bio-Formats wrote (`bioformats2raw.layout`) holds images 0, 1 ... Plates and plain Zarr arrays are
    refused. A chunk that is not there has the array's fill value, as the format defines.
    Source: https://ngff.openmicroscopy.org/0.5/
    """
    with clear_errors(path, DAMAGED):
        groups = _groups(path)
        return [_image(path, group, scene) for group, scene in zip(groups, scene_names(len(groups)), strict=True)]


def open_levels(path: Path) -> list[ImageFile]:
    """Return the levels of the one image of an OME-Zarr folder, the finest first, each with its own pixel size.

    `load(Y=slice(0, 512), X=slice(0, 512))` reads a window; see `window`. Channels that are the red, green and blue of
    colour pixels are the axis S, so the image is segmented whole. Raises InputError as `open_zarr` does, and for
    several images.
    """
    with clear_errors(path, DAMAGED):
        groups = _groups(path)
        if len(groups) > 1:
            raise InputError(f"{path}: holds {len(groups)} images; give one of them, such as {path}/0")
        datasets = metadata_of(groups[0])["multiscales"][0]["datasets"]
        return [_colours(_image(path, groups[0], "", number)) for number in range(len(datasets))]


def window(image: ImageFile, rows: slice, columns: slice) -> ImageFile:
    """Return a part of an image that `open_levels` opened, as an image of its own; nothing is read."""
    lengths = {"Y": rows.stop - rows.start, "X": columns.stop - columns.start}
    shape = tuple(lengths.get(axis, size) for axis, size in image.sizes.items())
    return replace(image, shape=shape, load=partial(image.load, Y=rows, X=columns))


def one_channel(image: ImageFile, number: int) -> ImageFile:
    """Return one of an image's channels as an image of its own; the others are not read."""
    sizes = image.sizes
    del sizes["C"]
    return replace(
        image, axes="".join(sizes), shape=tuple(sizes.values()), channels=(), load=partial(image.load, C=number)
    )


def _groups(path: Path) -> list:
    """Return the groups of the images in a folder."""
    root = library(path, "zarr", "zarr").open_group(str(path), mode="r")
    about = metadata_of(root)
    if "multiscales" in about:
        return [root]
    if "plate" in about or "well" in about:
        raise InputError(f"{path}: is a plate; give its images, such as {path}/A/1/0")
    numbers = [key for key in root.group_keys() if key.isdigit()] if "bioformats2raw.layout" in about else []
    if not numbers:
        raise InputError(f"{path}: has no images by OME-Zarr's metadata (multiscales)")
    return [root[name] for name in sorted(numbers, key=int)]


def metadata_of(group) -> dict:
    """Return a group's OME metadata: since 0.5 under a key of their own."""
    attributes = dict(group.attrs)
    return attributes.get("ome", attributes)


def _image(path: Path, group, scene: str, number: int = 0) -> ImageFile:
    about = metadata_of(group)
    scales = about["multiscales"][0]
    level = scales["datasets"][number]
    array = group[level["path"]]
    # Up to 0.2 the axes were always these; in 0.3, plain names.
    described = [axis if isinstance(axis, dict) else {"name": axis} for axis in scales.get("axes", "tczyx")]
    axes = ""
    for axis in described:
        known = len(axis["name"]) == 1 and axis["name"].upper() in "TCZYX"
        axes += axis["name"].upper() if known else {"channel": "C", "time": "T"}.get(axis.get("type"), "?")
    if len(axes) != array.ndim:
        raise InputError(f"{path}: {len(axes)} axes are named for {array.ndim} dimensions")
    names = [channel.get("label") for channel in about.get("omero", {}).get("channels", [])]
    channels, pixel_size = channel_names(axes, array.shape, names), _pixel_size(described, axes, scales, level)
    load, dtype = partial(_load, path, array, axes), np.dtype(array.dtype)
    return ImageFile(path, scene, axes, array.shape, dtype, channels, *pixel_size, load)


# What files call the channels of colour pixels. Without names they are numbered.
RED_GREEN_BLUE = ("red", "green", "blue"), ("r", "g", "b"), ("0", "1", "2"), ("channel 0", "channel 1", "channel 2")


def _colours(image: ImageFile) -> ImageFile:
    names = tuple(name.casefold() for name in image.channels)
    if names not in RED_GREEN_BLUE or image.dtype != np.uint8 or "S" in image.axes:
        return image
    return replace(image, axes=image.axes.replace("C", "S"), channels=(), load=partial(_load_samples, image.load))


def _load_samples(load, **index) -> np.ndarray:
    return load(**{"C" if axis == "S" else axis: at for axis, at in index.items()})


def _pixel_size(described: list[dict], axes: str, scales: dict, level: dict) -> tuple[float | None, str]:
    """Multiply the scales of the level and of all levels together, as NGFF 0.4 has it."""
    lengths = dict.fromkeys("YX", 1.0)
    known = False
    for transform in [*level.get("coordinateTransformations", []), *scales.get("coordinateTransformations", [])]:
        if transform["type"] == "scale":
            known = True
            lengths = {axis: length * transform["scale"][axes.index(axis)] for axis, length in lengths.items()}
    if not known or not set("YX") <= set(axes):
        return None, "unknown"
    units = {axis: str(described[axes.index(axis)].get("unit", "")) for axis in "YX"}
    return square((micrometres(float(lengths[axis]), units[axis]) for axis in "XY"), "OME-Zarr metadata")


def _load(path: Path, array, axes: str, **index: int | slice) -> np.ndarray:
    with clear_errors(path):
        return np.asarray(pick(array, axes, index))
