"""OME-Zarr (NGFF): an image and its label image as pyramids in chunks, as napari, Fiji and QuPath open them.

Version 0.4 of the format, on Zarr 2: every reader knows it, while some do not know 0.5 yet. Both are read.
Source: https://ngff.openmicroscopy.org/0.4/
"""

from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_folder
from nuclei_unet.formats.imagefile import clear_errors, library
from nuclei_unet.formats.label_image import check_size, checked
from nuclei_unet.formats.zarr_images import DAMAGED, metadata_of

VERSION = "0.4"
CHUNK = 1024
NAME = "nuclei"


def write(path: Path, labels: np.ndarray, pixel_size: float | None = None, channels: np.ndarray | None = None) -> None:
    """Write a label image, and the image that it belongs to.

    With an image, it is the group itself, and the label image the group `labels/nuclei` in it. Without one, the group
    is the label image. Each pyramid halves rows and columns by taking every second one, down to a single chunk of
    1024 x 1024 pixels.

    The folder, by custom NAME.ome.zarr, is replaced if it exists. `labels` are integer (H, W), 0 = background;
    `pixel_size` is in micrometres, None if not known, and then the axes have no unit; `channels` are of the image,
    (H, W), or (H, W, C), which is written as c, y, x.

    Raises InputError if zarr is not installed, or image and labels differ in size.
    """
    zarr = library(path, "zarr", "zarr")
    labels = checked(labels, str(path))
    if channels is not None and channels.shape[:2] != labels.shape:
        raise InputError(f"{path}: labels of shape {labels.shape} do not fit an image of shape {channels.shape}")
    about: dict = {"version": VERSION}
    with fresh_folder(path) as folder:
        root = zarr.open_group(str(folder), mode="w", zarr_format=2)
        group = root
        if channels is not None:
            planes = channels if channels.ndim == 2 else np.moveaxis(channels, 2, 0)
            _write_pyramid(root, planes, pixel_size, {"name": path.name.removesuffix(".ome.zarr")})
            if planes.ndim == 3 and len(planes) == 3 and planes.dtype == np.uint8:
                root.attrs["omero"] = {"channels": CHANNELS}
            parent = root.create_group("labels", attributes={"labels": [NAME]})
            group = parent.create_group(NAME)
            about |= {"source": {"image": "../../"}}
        _write_pyramid(group, labels, pixel_size, {"name": NAME, "type": "nearest"})
        group.attrs["image-label"] = about


# Without this, viewers show the channels of a colour image in colours of their own.
CHANNELS = [
    {"label": label, "color": color, "active": True, "window": {"start": 0, "end": 255, "min": 0, "max": 255}}
    for label, color in (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))
]


def _write_pyramid(group, planes: np.ndarray, pixel_size: float | None, about: dict) -> None:
    axes = [{"name": "c", "type": "channel"}] if planes.ndim == 3 else []
    for level, array in enumerate(_create_arrays(group, planes.shape, planes.dtype)):
        array[:] = planes[..., :: 2**level, :: 2**level]
    _describe(group, axes, pixel_size, about)


def create(path: Path, shape: tuple[int, int], pixel_size: float | None, source: str) -> None:
    """Create an OME-Zarr group that holds a pyramid of label images alone, without nuclei so far.

    The folder becomes `labels` of an OME-Zarr, and is replaced if it exists. The labels are uint32 of `shape` (height,
    width); `pixel_size` is in micrometres, None if not known; `source` is where the image is, from the group of the
    label image on.
    """
    root = library(path, "zarr", "zarr").open_group(str(path), mode="w", zarr_format=2)
    root.attrs["labels"] = [NAME]
    group = root.create_group(NAME)
    _create_arrays(group, shape, np.dtype(np.uint32))
    _describe(group, [], pixel_size, {"name": NAME, "type": "nearest"})
    group.attrs["image-label"] = {"version": VERSION, "source": {"image": source}}


def open_arrays(path: Path) -> list:
    """Return the levels of what `create` made, to write to and to read from. Several processes may write to chunks."""
    group = library(path, "zarr", "zarr").open_group(str(path), mode="r+")[NAME]
    return [group[level["path"]] for level in group.attrs["multiscales"][0]["datasets"]]


def _shapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes of all levels: every second row and column, down to one chunk."""
    shapes = [tuple(shape)]
    while max(shapes[-1][-2:]) > CHUNK:
        shapes.append((*shape[:-2], *(-(-side // 2) for side in shapes[-1][-2:])))
    return shapes


def _create_arrays(group, shape: tuple[int, ...], dtype: np.dtype) -> list:
    from numcodecs import Zlib

    return [
        group.create_array(
            str(number),
            shape=level,
            dtype=dtype,
            chunks=(1,) * (len(level) - 2) + tuple(min(side, CHUNK) for side in level[-2:]),
            compressors=Zlib(level=6),  # slower than others, but readers in every language have it
            chunk_key_encoding={"name": "v2", "separator": "/"},
            fill_value=0,
        )
        for number, level in enumerate(_shapes(shape))
    ]


def _describe(group, axes: list[dict], pixel_size: float | None, about: dict) -> None:
    """Write the metadata of a pyramid; `axes` are those before y and x."""
    unit = {"unit": "micrometer"} if pixel_size else {}
    datasets = []
    for number in range(len(list(group.array_keys()))):
        scale = [1.0] * len(axes) + [2**number * (pixel_size or 1.0)] * 2
        transform = {"type": "scale", "scale": scale}
        datasets.append({"path": str(number), "coordinateTransformations": [transform]})
    axes = [*axes, *({"name": name, "type": "space", **unit} for name in "yx")]
    group.attrs["multiscales"] = [{"version": VERSION, "axes": axes, "datasets": datasets, **about}]


def read(path: Path) -> np.ndarray:
    """Read a label image at full size: the group itself if it is one, else `labels/nuclei`, else the only one.

    The labels are uint16 or uint32 (H, W). Raises InputError if zarr is not installed, and for no OME-Zarr, no label
    image in it or several, or what it holds is none.
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    with clear_errors(path, DAMAGED):
        group = library(path, "zarr", "zarr").open_group(str(path), mode="r")
        about = metadata_of(group)
        if "image-label" not in about:
            names = metadata_of(group["labels"])["labels"] if "labels" in group else []
            if NAME not in names and len(names) != 1:
                listed = ", ".join(names)[:200]
                raise InputError(f"{path}: has {len(names)} label images ({listed}), none called {NAME}")
            group = group["labels"][NAME if NAME in names else names[0]]
            about = metadata_of(group)
        array = group[about["multiscales"][0]["datasets"][0]["path"]]
        sides = tuple(side for side in array.shape if side > 1)
        check_size(sides if len(sides) >= 2 else array.shape[-2:], f"{path}: not a label image")
        return checked(array[:], str(path))
