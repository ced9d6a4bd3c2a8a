"""What is known of an image before its pixels are read, whatever its format."""

import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from nuclei_unet.errors import InputError

# Of the files that can be read as images.
SUFFIXES = (".bmp", ".btf", ".czi", ".jpeg", ".jpg", ".lif", ".nd2", ".png", ".tf8", ".tif", ".tiff", ".zarr")


@dataclass(frozen=True)
class ImageFile:
    """One image of a file. Of a file with several scenes or series, each is one."""

    path: Path
    scene: str  # empty if the file holds one image only, else scene0, scene1 ... in the file's order
    axes: str  # a letter for each dimension: T, C, Z, Y, X and S, the samples of a colour pixel
    shape: tuple[int, ...]
    dtype: np.dtype
    channels: tuple[str, ...]  # names along C: the file's, or 0, 1 ... if it has none; empty without that axis
    pixel_size: float | None  # micrometres per pixel; None if unknown
    pixel_size_from: str  # such as OME metadata; or unknown, with the reason if there is one
    # `load(T=3, Z=0)` reads what lies at these indices, from 0: an array of the other axes, in their order. Not meant
    # for several threads at a time. Raises InputError if the file turns out to be damaged there.
    load: Callable[..., np.ndarray]

    @property
    def name(self) -> str:
        """The file and, if it has several images, which one: for messages."""
        return f"{self.path} ({self.scene})" if self.scene else str(self.path)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of entries along each axis."""
        return dict(zip(self.axes, self.shape, strict=True))


@contextmanager
def clear_errors(path: Path, missing: str = "cannot be read") -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{path}: too little memory to read it") from None
    except Exception as error:
        # Some libraries use many lines, or none.
        said = " ".join(str(error).split())[:200] or type(error).__name__
        if "requires the 'imagecodecs' package" in said:
            raise InputError(f"{path}: its compression needs imagecodecs: pip install 'nuclei-unet[codecs]'") from None
        raise InputError(f"{path}: {missing} ({said.removeprefix(f'{path}: ')})") from None


def library(path: Path, name: str, extra: str):
    """Return a module that is not always installed. Raises InputError that names what installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise InputError(f"{path}: needs {package}: pip install 'nuclei-unet[{extra}]'") from None


def scene_names(count: int) -> list[str]:
    """Return short names that are safe in file names for the images of one file; an only image needs none."""
    width = len(str(count - 1))
    return [""] if count == 1 else [f"scene{number:0{width}}" for number in range(count)]


def channel_names(axes: str, shape: tuple[int, ...], names: list[str | None]) -> tuple[str, ...]:
    """Return a name for each entry along C, from the file's `names`; a channel's number where there is none."""
    if "C" not in axes:
        return ()
    count = shape[axes.index("C")]
    names = [*names, *[None] * count][:count]
    return tuple((name or "").strip() or str(number) for number, name in enumerate(names))


def pick(array: np.ndarray, axes: str, index: Mapping[str, int]) -> np.ndarray:
    """Return the part of an array that lies at the given indices, without these axes."""
    return array[tuple(index.get(axis, slice(None)) for axis in axes)]


def without_suffix(path: PurePath) -> PurePath:
    """Return an image's path without its suffix; `.ome.tif` and the like count as one."""
    path = path.with_suffix("")
    return path.with_suffix("") if path.suffix == ".ome" else path


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


def square(sides: Iterable[float | None], source: str) -> tuple[float | None, str]:
    """Return a pixel's side and where it is from, from its width and height in micrometres.

    If the sides differ by more than one percent, it is unknown, and the second value says why.
    """
    width, height = sides
    if width is None or height is None:
        return None, "unknown"
    if abs(width - height) > 0.01 * max(width, height):
        return None, f"unknown: pixels of {width:g} x {height:g} µm are not square ({source})"
    return (width + height) / 2, source
