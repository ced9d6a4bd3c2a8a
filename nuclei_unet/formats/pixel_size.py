"""Pixel sizes in micrometres from what the metadata of many programs say."""

import math

MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre", "micrometers"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("å", "Å", "angstrom"), 1e-4),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in", '"'), 25_400.0),
}


def micrometres(length: float, unit: str) -> float | None:
    """Return a length in micrometres; None if the unit is none of length, such as pixel, or the length is none.

    The units are those of OME-XML and OME-Zarr by symbol or name, and ImageJ's, who writes the micro sign as \\u00B5.
    """
    unit = unit.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    factor = MICROMETRES.get(unit, MICROMETRES.get(unit.lower()))
    return length * factor if factor and math.isfinite(length) and length > 0 else None


def square(width: float | None, height: float | None, source: str) -> tuple[float | None, str]:
    """Return a pixel's side and where it is from, from its width and height in micrometres.

    Pixels whose sides differ by more than one percent have no one size. Then it is unknown, and the second value says
    why.
    """
    if width is None or height is None:
        return None, "unknown"
    if abs(width - height) > 0.01 * max(width, height):
        return None, f"unknown: pixels of {width:g} x {height:g} µm are not square ({source})"
    return (width + height) / 2, source
