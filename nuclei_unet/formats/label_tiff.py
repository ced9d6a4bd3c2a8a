"""Label images as TIFF, as napari and Fiji expect them. PNG and the TIFFs of other tools are read, too."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats import png
from nuclei_unet.formats.imagefile import clear_errors
from nuclei_unet.formats.label_image import check_size, checked


def write_labels(path: Path, labels: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a label image as TIFF, compressed with zlib, which every reader knows.

    Up to label 65,535 it is a uint16 file with ImageJ's metadata. Fiji takes the pixel size and the range of grey
    levels from it; without a range, it would show labels as black. Above, it is a uint32 OME-TIFF, since ImageJ's own
    metadata has no such dtype.

    `labels` are integer (H, W), 0 = background; `pixel_size` is in micrometres. Without it, the file has none.
    """
    import tifffile  # takes 0.2 s

    labels = checked(labels, str(path))
    # No time, no random number: the same labels give the same bytes.
    how: dict[str, Any] = {"compression": "zlib", "software": "nuclei-unet", "photometric": "minisblack"}
    if labels.dtype == np.uint16:
        about: dict[str, Any] = {"axes": "YX", "min": 0, "max": max(int(labels.max()), 1)}
        how |= {"imagej": True, "metadata": about | ({"unit": "um"} if pixel_size else {})}
        if pixel_size:
            how |= {"resolution": (1 / pixel_size, 1 / pixel_size)}
    else:
        about = {"axes": "YX", "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, "nuclei-unet"))}
        if pixel_size:
            about |= {"PhysicalSizeX": pixel_size, "PhysicalSizeY": pixel_size}
            about |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
            how |= {"resolution": (1e4 / pixel_size, 1e4 / pixel_size), "resolutionunit": "CENTIMETER"}
        how |= {"ome": True, "metadata": about}
    with fresh_file(path) as partial:
        tifffile.imwrite(partial, labels, **how)


def read_labels(path: Path) -> np.ndarray:
    """Read a label image from a TIFF (.tif, .tiff) or a PNG.

    The labels are uint16 (H, W), or uint32 if one is above 65,535; the numbers as they are in the file. Of a pyramid,
    the largest level. Raises InputError: no such file, damaged, compressed with what is not installed, a stack or
    colour image, negative numbers, fractions.
    """
    import tifffile

    from nuclei_unet.formats.tiff import listening

    if not path.exists():
        raise InputError(f"{path}: no such file")
    with clear_errors(path, "not a TIFF that can be read"):
        if path.suffix.lower() == ".png":
            return checked(png.decode(path.read_bytes(), str(path)), str(path))
        with listening(path), tifffile.TiffFile(path) as file:
            if len(file.series) != 1:
                raise InputError(f"{path}: holds {len(file.series)} images; a label image is one")
            level = file.series[0].levels[0]
            shape = tuple(side for side in level.shape if side > 1)
            check_size(shape if len(shape) >= 2 else level.shape[-2:], f"{path}: not a label image")
            return checked(level.asarray(), str(path))
