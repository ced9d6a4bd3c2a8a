"""Names of channels and pixel sizes from the metadata of OME-TIFF and ImageJ, and from TIFF's resolution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from nuclei_unet.formats.pixel_size import MICROMETRES, micrometres, square

# TIFF's resolution is often that of a printer: 72, 96, 300, 600 or 1,200 dots per inch, that is 353 to 21 µm, which
# means nothing. A nucleus is about 10 µm wide, so no image in which one can be outlined has pixels above 5 µm; and
# light does not resolve 0.01 µm.
PLAUSIBLE = (0.01, 5.0)
RESOLUTION_UNITS = {2: "inch", 3: "cm"}


@dataclass(frozen=True)
class OmeImage:
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
    found = []
    for shape, letters in zip(shapes, axes, strict=True):
        size = [str(shape[letters.index(letter)]) for letter in "XY"]
        found.append(next((_ome_image(one) for one in elements if [one.get("SizeX"), one.get("SizeY")] == size), None))
    return found


def _ome_image(pixels: ElementTree.Element) -> OmeImage:
    names = [channel.get("Name") or channel.get("Fluor") for channel in pixels.iterfind("{*}Channel")]
    sides = []
    for axis in "XY":
        try:
            length = float(pixels.get(f"PhysicalSize{axis}", "nan"))
        except ValueError:
            length = math.nan
        sides.append(micrometres(length, pixels.get(f"PhysicalSize{axis}Unit", "µm")))
    return OmeImage(names, *sides)


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
        return square(meta.width, meta.height, "OME metadata")
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
    return square(*sides, source)


def _rational(value) -> float | None:
    try:
        number = value[0] / value[1] if isinstance(value, tuple) else float(value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    return number if math.isfinite(number) and number > 0 else None
