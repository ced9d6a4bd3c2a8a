"""Read the formats of microscope makers with their makers' or well-kept libraries: CZI, ND2 and LIF.

CZI is tested on files that Zeiss's own library writes. Nothing writes ND2 or LIF. The code for ND2 was tried on one
real file (times, planes, two channels), the one for LIF on two (8 bit, scans along Z and over wavelengths). Colour
images and several positions in ND2, and colour images and mosaics in LIF, follow the libraries' documentation only.
"""

import math
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

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

CZI_TYPES = {"Gray8": "uint8", "Gray16": "uint16", "Gray32Float": "float32"}
CZI_TYPES |= {"Bgr24": "uint8", "Bgr48": "uint16", "Bgr96Float": "float32"}


def open_czi(path: Path) -> list[ImageFile]:
    """Return the scenes of a Zeiss CZI at full resolution, their mosaics joined, with pylibCZIrw.

    What no tile covers is 0. Names of channels and the pixel size are from the file's metadata. Raises InputError if
    the file is damaged, has axes other than T, C, Z, Y and X, or mixes grey and colour channels.
    """
    czi = library(path, "pylibCZIrw.czi", "czi")
    with clear_errors(path, "is not a CZI that can be read"), czi.open_czi(str(path)) as document:
        box = document.total_bounding_box_no_pyramid
        counts = {axis: stop - start for axis, (start, stop) in box.items()}
        other = [axis for axis in counts if axis not in "TCZYX" and counts[axis] > 1]
        if other:
            raise InputError(f"{path}: has axes {', '.join(other)} beside T, C, Z, Y, X; export single ones from ZEN")
        types = {document.get_channel_pixel_type(channel) for channel in range(counts["C"])}
        if not types <= set(CZI_TYPES) or len({name.startswith("Bgr") for name in types}) != 1:
            raise InputError(f"{path}: its pixels are {', '.join(sorted(types))}, which cannot be read together")
        colour = any(name.startswith("Bgr") for name in types)
        names, sides = _czi_metadata(document.raw_metadata)
        whole = document.total_bounding_rectangle_no_pyramid
        scenes = document.scenes_bounding_rectangle_no_pyramid or {None: whole}
        dtype = np.result_type(*(CZI_TYPES[name] for name in types))
        outer = "".join(axis for axis in "TCZ" if counts[axis] > 1 or (axis == "C" and not colour and any(names)))
        images = []
        for (scene, place), label in zip(sorted(scenes.items()), scene_names(len(scenes)), strict=True):
            axes = outer + "YX" + "S" * colour
            shape = (*(counts[axis] for axis in outer), place.h, place.w, *[3] * colour)
            load = partial(_load_czi, czi, path, scene, tuple(place), axes, shape, dtype)
            channels = channel_names(axes, shape, names)
            images.append(ImageFile(path, label, axes, shape, dtype, channels, *square(sides, "CZI metadata"), load))
        return images


def _czi_metadata(xml: str) -> tuple[list[str | None], list[float | None]]:
    """Return the names of the channels, and width and height of a pixel in micrometres; a CZI has metres."""
    root = ElementTree.fromstring(xml)
    channels = root.iterfind("./Metadata/Information/Image/Dimensions/Channels/Channel")
    sides = []
    for axis in "XY":
        value = root.findtext(f"./Metadata/Scaling/Items/Distance[@Id='{axis}']/Value")
        sides.append(micrometres(float(value), "m") if value else None)
    return [channel.get("Name") for channel in channels], sides


def _load_czi(czi, path, scene, place, axes, shape, dtype, **index) -> np.ndarray:
    sizes = dict(zip(axes, shape, strict=True))
    free = [axis for axis in axes if axis not in index and axis in "TCZ"]
    with clear_errors(path), czi.open_czi(str(path)) as document:
        planes = []
        for at in np.ndindex(*(sizes[axis] for axis in free)):
            plane = {"T": 0, "C": 0, "Z": 0} | index | dict(zip(free, at, strict=True))
            pixels = document.read(roi=place, plane=plane, scene=scene)
            # Blue comes first.
            planes.append(np.ascontiguousarray(pixels[..., ::-1] if "S" in axes else pixels[..., 0], dtype=dtype))
    return np.stack(planes).reshape(*(sizes[axis] for axis in free), *planes[0].shape)


def open_nd2(path: Path) -> list[ImageFile]:
    """Return the positions of a Nikon ND2, each an image, with the library nd2. Frames are read one at a time."""
    nd2 = library(path, "nd2", "nd2")
    with clear_errors(path, "is not an ND2 that can be read"), nd2.ND2File(path) as file:
        sizes, dtype = dict(file.sizes), np.dtype(file.dtype)
        described = (file.metadata.channels if file.metadata else None) or []
        names = [channel.channel.name for channel in described]
        sides: list[float | None] = [None, None]
        # Without a calibration the library says 1.
        if described and all(described[0].volume.axesCalibrated[:2]):
            sides = list(described[0].volume.axesCalibration[:2])
    axes = "".join(axis for axis in sizes if axis != "P")
    shape = tuple(sizes[axis] for axis in axes)
    channels, (size, source) = channel_names(axes, shape, names), square(sides, "ND2 metadata")
    return [
        ImageFile(path, scene, axes, shape, dtype, channels, size, source, partial(_load_nd2, nd2, path, sizes, number))
        for number, scene in enumerate(scene_names(sizes.get("P", 1)))
    ]


def _load_nd2(nd2, path, sizes, position, **index) -> np.ndarray:
    frame = [axis for axis in sizes if axis in "CYXS"]
    outer = [axis for axis in sizes if axis not in "CYXS"]
    index = {"P": position} | index
    free = [axis for axis in outer if axis not in index]
    with clear_errors(path), nd2.ND2File(path) as file:
        planes = []
        for at in np.ndindex(*(sizes[axis] for axis in free)):
            place = index | dict(zip(free, at, strict=True))
            number = 0
            for axis in outer:
                number = number * sizes[axis] + place[axis]
            pixels = file.read_frame(number).reshape([sizes[axis] for axis in frame])
            planes.append(np.array(pick(pixels, "".join(frame), index)))
    return np.stack(planes).reshape(*(sizes[axis] for axis in free), *planes[0].shape)


def open_lif(path: Path) -> list[ImageFile]:
    """Return the images of a Leica LIF, with liffile; tiles of a mosaic that was not merged are an image each.

    A channel's name is that of its dye, else of its display colour.
    """
    liffile = library(path, "liffile", "lif")
    with clear_errors(path, "is not a LIF that can be read"), liffile.LifFile(path) as file:
        tiles = []
        for number, image in enumerate(file.images):
            axes = "".join(axis if len(axis) == 1 else "?" for axis in image.sizes)
            if math.prod(image.shape):
                tiles += [(number, image, axes, tile) for tile in range(image.sizes.get("M", 1))]
        if not tiles:
            raise InputError(f"{path}: has no images")
        return [
            _lif_image(liffile, path, *item, scene) for item, scene in zip(tiles, scene_names(len(tiles)), strict=True)
        ]


def _lif_image(liffile, path, number, image, stored, tile, scene) -> ImageFile:
    axes = stored.replace("M", "")
    shape = tuple(size for axis, size in zip(stored, image.shape, strict=True) if axis != "M")
    about = image.xml_element.find("./Data/Image/ImageDescription")
    names = []
    for channel in about.iterfind("./Channels/ChannelDescription") if about is not None else ():
        properties = {one.findtext("Key"): one.findtext("Value") for one in channel.iterfind("ChannelProperty")}
        # Such as Leica/DAPI.
        names.append((properties.get("DyeName") or channel.get("LUTName") or "").split("/")[-1])
    sides = [_lif_side(about, dimension) for dimension in ("1", "2")]
    load = partial(_load_lif, liffile, path, number, stored, tile)
    channels = channel_names(axes, shape, names)
    return ImageFile(path, scene, axes, shape, image.dtype, channels, *square(sides, "LIF metadata"), load)


def _lif_side(about, dimension: str) -> float | None:
    """Return the distance of neighbours along X (1) or Y (2) in micrometres; a length is from first to last pixel."""
    side = about.find(f"./Dimensions/DimensionDescription[@DimID='{dimension}']") if about is not None else None
    if side is None or int(side.get("NumberOfElements", 0)) < 2:
        return None
    return micrometres(float(side.get("Length", 0)) / (int(side.get("NumberOfElements")) - 1), side.get("Unit", ""))


def _load_lif(liffile, path, number, stored, tile, **index) -> np.ndarray:
    with clear_errors(path), liffile.LifFile(path) as file:
        # Copy on write: of colours stored as BGR, liffile swaps the samples in place.
        array = file.images[number].asarray(mode="c", out="memmap")
        return np.array(pick(array, stored, {"M": tile} | index))
