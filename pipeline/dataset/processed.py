"""The processed data set: what an image looks like to the network, and the one owner of its format on disk.

data/processed/
  manifest.csv      one row an image: image_id, split, kind, frame, height, width, nuclei
  images/<id>.png   what the network sees: uint8, (H, W) or (H, W, 3), resized if preprocess.image_size says so
  labels/<id>.png   the truth at native size: uint16 (H, W), 0 = background, 1 ... n = nuclei
"""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from skimage.filters import threshold_otsu

from pipeline.params import PreprocessParams
from pipeline.stage import InputError

FOLDER = Path("data/processed")
AGAIN = "run `dvc repro --force preprocess`"
SPLITS = ("train", "validation", "test")
MANIFEST_COLUMNS = ("image_id", "split", "kind", "frame", "height", "width", "nuclei")
KINDS = (
    "small-fluorescent",
    "large-fluorescent",
    "purple-on-white",
    "purple-on-purple",
    "purple-on-yellow",
    "grey-tissue",
)

# Fluorescent nuclei of BBBC038 have median areas up to 700 px or from 870 px on: the gap lies here.
LARGE_NUCLEUS = 800

# Pixels of an image up to which all of them are looked at for percentiles and the like.
LARGEST_WHOLE = 2**22


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return any grey, grey + alpha, RGB or RGBA image as (H, W, 3) of the same dtype; alpha is dropped."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or image.size == 0:
        raise InputError(f"expected a grey or colour image, found an array of shape {image.shape}")
    channels = image[..., :3] if image.shape[2] >= 3 else image[..., :1]
    return np.ascontiguousarray(np.broadcast_to(channels, (*image.shape[:2], 3)))


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Return the mean of the three channels; ten times faster than `mean(axis=2)`, to the same bit."""
    return (pixels[..., 0] + pixels[..., 1] + pixels[..., 2]) / pixels.dtype.type(3)


def has_light_background(rgb: np.ndarray) -> bool:
    """Tell bright-field images (dark nuclei on a light background) from fluorescent ones.

    The background is the most common brightness, so the median lies near it: above the middle of the range it is
    light. Works for any dtype, since only ranks and the range count.
    """
    # Extreme percentiles: a single small nucleus on a dark field still sets the upper end.
    low, median, high = np.percentile(_grey(rgb.astype(np.float32)), (0.02, 50, 99.98))
    return bool(median - low > high - median)


def normalize(image: np.ndarray, params: PreprocessParams) -> np.ndarray:
    """Turn a microscope image into what the network sees.

    Parameters
    ----------
    image : (H, W), (H, W, 2), (H, W, 3) or (H, W, 4); any real dtype, any range
    params : the `preprocess` section

    Returns
    -------
    uint8 (H, W) if `params.channels` is 1, else (H, W, 3), or with `params.image_size` as H, W. Intensities are
    stretched between `params.percentiles`, or, where that is null, divided by the dtype's range. Light backgrounds
    are inverted, so that nuclei are brighter than what surrounds them. Then, unless `params.nucleus_intensity` is
    null, all is scaled so that the typical nucleus has that intensity, whatever a few brighter ones have.

    Raises
    ------
    InputError : not an image, or NaN or infinite values
    """
    rgb = to_rgb(image)
    if rgb.dtype.kind == "f" and not np.isfinite(rgb).all():
        raise InputError("the image has NaN or infinite values; replace them first")
    # Of very large images every second, third ... line and column says enough.
    step = max(math.isqrt(rgb.shape[0] * rgb.shape[1] // LARGEST_WHOLE), 1)
    sample = rgb[::step, ::step]
    pixels = _channels(sample, params.channels)
    if params.percentiles is not None:
        low, high = (float(value) for value in np.percentile(pixels, params.percentiles))
    else:
        low, high = 0.0, float(np.iinfo(rgb.dtype).max) if rgb.dtype.kind in "ui" else 1.0
    invert = params.invert_light_background and has_light_background(sample)

    def stretch(part: np.ndarray) -> np.ndarray:
        stretched = np.clip((_channels(part, params.channels) - low) / max(high - low, 1e-6), 0, 1)
        stretched = stretched.astype(np.float32, copy=False)
        return 1 - stretched if invert else stretched

    factor = 1.0 if params.nucleus_intensity is None else params.nucleus_intensity / nucleus_intensity(stretch(sample))
    factor = np.float32(np.clip(factor, 0.5, 8))

    def finish(pixels: np.ndarray) -> np.ndarray:
        return np.rint(np.clip(pixels * factor, 0, 1) * 255).astype(np.uint8)

    if params.image_size is not None:
        height, width = params.image_size
        return finish(cv2.resize(stretch(rgb), (width, height), interpolation=cv2.INTER_AREA))
    # In strips: floats take four times an image's memory, or more.
    return np.concatenate([finish(stretch(rgb[top : top + 512])) for top in range(0, len(rgb), 512)])


def nucleus_intensity(pixels: np.ndarray) -> float:
    """Return the intensity of the typical nucleus: the median of what Otsu's threshold takes for foreground.

    `pixels` is float (H, W) or (H, W, 3), light nuclei on a dark background, in 0 ... 1. At least 0.01; an image of
    one grey has no nuclei to be typical, and 1.
    """
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    if grey.min() == grey.max():
        return 1.0
    return max(float(np.median(grey[grey > threshold_otsu(grey)])), 0.01)


def _channels(rgb: np.ndarray, channels: int) -> np.ndarray:
    # Doubles where a float would not hold the range.
    pixels = rgb.astype(np.float32 if rgb.dtype.itemsize <= 2 else np.float64)
    return _grey(pixels) if channels == 1 else pixels


def kind_of_image(rgb: np.ndarray, median_area: float) -> str:
    """Name the kind of a native uint8 (H, W, 3) image, one of KINDS.

    Brightness and colour of the background tell the stain; the median area of the nuclei (px) tells small from
    large fluorescent ones. Thresholds are the middles of the gaps seen in the training images.
    """
    if not has_light_background(rgb):
        return "large-fluorescent" if median_area >= LARGE_NUCLEUS else "small-fluorescent"
    pixels = rgb.astype(np.float32)
    red, green, blue = np.moveaxis(pixels, 2, 0)
    chroma = np.mean(np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue))
    if chroma < 6:
        return "grey-tissue"
    grey = _grey(pixels)
    red, green, blue = rgb[grey >= np.percentile(grey, 80)].mean(axis=0)
    if min(red, blue) - green > 10:
        return "purple-on-purple"
    return "purple-on-yellow" if green - blue > 5 else "purple-on-white"


@dataclass(frozen=True)
class Sample:
    """One image of the processed data set."""

    image_id: str
    split: str
    kind: str
    image: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class StoredSample:
    """A `Sample` on disk, read when its pixels are asked for, each time: a split of any size fits into memory."""

    image_id: str
    split: str
    kind: str
    folder: Path

    @property
    def image(self) -> np.ndarray:
        """Read the image, as `read_image` does."""
        return read_image(self.folder / "images" / f"{self.image_id}.png")

    @property
    def labels(self) -> np.ndarray:
        """Read the label image, as `read_labels` does."""
        return read_labels(self.folder / "labels" / f"{self.image_id}.png")


def write_sample(folder: Path, image_id: str, image: np.ndarray, labels: np.ndarray) -> None:
    """Write one image (uint8) and its label image (uint16) below `folder`."""
    # Level 1: twice the speed of the default for a tenth more bytes.
    for name, pixels in (("images", image[..., ::-1] if image.ndim == 3 else image), ("labels", labels)):
        path = folder / name / f"{image_id}.png"
        path.parent.mkdir(exist_ok=True)
        if not cv2.imwrite(str(path), pixels, (cv2.IMWRITE_PNG_COMPRESSION, 1)):
            raise OSError(f"cannot write {path}")


def read_manifest(folder: Path = FOLDER) -> pd.DataFrame:
    """Return manifest.csv, one row an image."""
    path = folder / "manifest.csv"
    if not path.exists():
        raise InputError(f"{path}: no such file; run `dvc repro preprocess` first")
    # Ids are names: "007" and "1e5" are not to become numbers, nor "NA" a gap.
    return pd.read_csv(path, dtype={"image_id": str}, keep_default_na=False)


def read_split(split: str, folder: Path = FOLDER) -> list[StoredSample]:
    """Return the images of a split ('train', 'validation' or 'test') in the order of their ids; no pixel is read yet.

    Raises InputError if a file is missing.
    """
    rows = read_manifest(folder)
    rows = rows[rows.split == split].sort_values("image_id")
    for name in ("images", "labels"):
        present = {path.name for path in (folder / name).glob("*.png")}
        if missing := sorted({f"{image_id}.png" for image_id in rows.image_id} - present):
            raise InputError(f"{folder / name / missing[0]}: missing or not a readable PNG; {AGAIN}")
    return [StoredSample(row.image_id, split, row.kind, folder) for row in rows.itertuples()]


def read_image(path: Path) -> np.ndarray:
    """Read a processed image: uint8 (H, W) or (H, W, 3)."""
    pixels = _read_png(path)
    return np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels


def read_labels(path: Path) -> np.ndarray:
    """Read a label image: uint16 (H, W)."""
    return _read_png(path).astype(np.uint16, copy=False)


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write a label image as 16-bit PNG."""
    if not cv2.imwrite(str(path), labels.astype(np.uint16)):
        raise OSError(f"cannot write {path}")


def resize_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a uint16 label image at another size; every pixel takes the label nearest to it."""
    return cv2.resize(labels, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT) if labels.shape != shape else labels


def renumber(labels: np.ndarray) -> np.ndarray:
    """Return the same nuclei as uint16 with labels 1 ... n without gaps."""
    values = np.union1d(labels, 0)
    if values.size > 2**16:
        raise ValueError(f"{values.size - 1} nuclei do not fit into a 16-bit label image")
    return np.searchsorted(values, labels).astype(np.uint16)


def _read_png(path: Path) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"{path}: missing or not a readable PNG; {AGAIN}")
    return pixels
