"""OME-Zarr (NGFF): an image and its label image as pyramids in chunks, as napari, Fiji and QuPath open them.

Version 0.4 of the format, on Zarr 2: every reader knows it, while some do not know 0.5 yet. Both are read.
Source: https://ngff.openmicroscopy.org/0.4/
"""

from pathlib import Path
from types import ModuleType

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_folder
from nuclei_unet.formats.label_image import check_size, checked

VERSION = "0.4"
CHUNK = 1024
NAME = "nuclei"


def write(path: Path, labels: np.ndarray, pixel_size: float | None = None, image: np.ndarray | None = None) -> None:
    """Write a label image, and the image that it belongs to.

    With an image, it is the group itself, and the label image the group `labels/nuclei` in it. Without one, the group
    is the label image. Each pyramid halves rows and columns by taking every second one, down to a single chunk of
    1024 x 1024 pixels.

    Parameters
    ----------
    path : the folder, by custom NAME.ome.zarr; replaced if it exists
    labels : integer (H, W), 0 = background
    pixel_size : micrometres per pixel; None: not known, and the axes have no unit
    image : (H, W), or (H, W, C), which is written as c, y, x

    Raises
    ------
    InputError : zarr is not installed, or image and labels differ in size
    """
    zarr = _zarr()
    labels = checked(labels, str(path))
    if image is not None and image.shape[:2] != labels.shape:
        raise InputError(f"{path}: labels of shape {labels.shape} do not fit an image of shape {image.shape}")
    about: dict = {"version": VERSION}
    with fresh_folder(path) as folder:
        root = zarr.open_group(str(folder), mode="w", zarr_format=2)
        group = root
        if image is not None:
            planes = image if image.ndim == 2 else np.moveaxis(image, 2, 0)
            _write_pyramid(root, planes, pixel_size, {"name": path.name.removesuffix(".ome.zarr")})
            if planes.ndim == 3 and len(planes) == 3 and planes.dtype == np.uint8:
                root.attrs["omero"] = {"channels": [_channel(*channel) for channel in CHANNELS]}
            parent = root.create_group("labels", attributes={"labels": [NAME]})
            group = parent.create_group(NAME)
            about |= {"source": {"image": "../../"}}
        _write_pyramid(group, labels, pixel_size, {"name": NAME, "type": "nearest"})
        group.attrs["image-label"] = about


CHANNELS = (("red", "FF0000"), ("green", "00FF00"), ("blue", "0000FF"))


def _channel(label: str, color: str) -> dict:
    """Without this, viewers show the channels of a colour image in colours of their own."""
    return {"label": label, "color": color, "active": True, "window": {"start": 0, "end": 255, "min": 0, "max": 255}}


def _zarr() -> ModuleType:
    try:
        import zarr
    except ImportError:
        raise InputError("OME-Zarr needs the package zarr; run: pip install 'nuclei-unet[zarr]'") from None
    return zarr


def _write_pyramid(group, planes: np.ndarray, pixel_size: float | None, about: dict) -> None:
    from numcodecs import Zlib

    unit = {"unit": "micrometer"} if pixel_size else {}
    axes = [{"name": name, "type": "space", **unit} for name in "yx"]
    axes = [{"name": "c", "type": "channel"}, *axes] if planes.ndim == 3 else axes
    datasets, step = [], 1
    while True:
        scale = [1.0] * (planes.ndim - 2) + [step * (pixel_size or 1.0)] * 2
        path = str(len(datasets))
        datasets.append({"path": path, "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        level = planes[..., ::step, ::step]
        array = group.create_array(
            path,
            shape=level.shape,
            dtype=level.dtype,
            chunks=(1,) * (planes.ndim - 2) + tuple(min(side, CHUNK) for side in level.shape[-2:]),
            compressors=Zlib(level=6),  # slower than others, but readers in every language have it
            chunk_key_encoding={"name": "v2", "separator": "/"},
            fill_value=0,
        )
        array[:] = level
        if max(level.shape[-2:]) <= CHUNK:
            break
        step *= 2
    group.attrs["multiscales"] = [{"version": VERSION, "axes": axes, "datasets": datasets, **about}]


def read(path: Path) -> np.ndarray:
    """Read a label image at full size: the group itself if it is one, else `labels/nuclei`, else the only one.

    Returns
    -------
    uint16 or uint32 (H, W)

    Raises
    ------
    InputError : zarr is not installed, no OME-Zarr, no label image in it or several, or what it holds is none
    """
    zarr = _zarr()
    if not path.is_dir():
        raise InputError(f"{path}: no such folder")
    try:
        group = zarr.open_group(str(path), mode="r")
        about = _about(group)
        if "image-label" not in about:
            names = _about(group["labels"])["labels"] if "labels" in group else []
            if NAME not in names and len(names) != 1:
                found = ", ".join(names)[:200]
                raise InputError(f"{path}: has {len(names)} label images ({found}), none called {NAME}")
            group = group["labels"][NAME if NAME in names else names[0]]
            about = _about(group)
        array = group[about["multiscales"][0]["datasets"][0]["path"]]
        sides = tuple(side for side in array.shape if side > 1)
        check_size(sides if len(sides) >= 2 else array.shape[-2:], f"{path}: not a label image")
        return checked(array[:], str(path))
    except InputError:
        raise
    # Damaged JSON, missing groups, missing codecs: zarr raises nearly anything.
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not an OME-Zarr that can be read ({type(error).__name__}: {said})") from None


def _about(group) -> dict:
    """Return the metadata of a group; version 0.5 keeps it under a key of its own."""
    return group.attrs.get("ome", group.attrs)
