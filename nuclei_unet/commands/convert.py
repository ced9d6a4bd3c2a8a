"""Write label images in another format.

nuclei-unet convert results/ nuclei.json --to coco
nuclei-unet convert qupath/ labels/ --from geojson --to tiff --images images/
nuclei-unet convert stage1_solution.csv labels/ --to tiff

A nucleus keeps its number. Formats: tiff (NAME_labels.tif; PNG is read, too), kaggle (NAME/masks/*.png), rle (Kaggle's
CSV), coco (JSON), geojson (QuPath), rois (ImageJ), ome-zarr. rle and coco are one file for all images, the others a
folder. GeoJSON and ROIs do not say how large the image is: give --images or --shape.
"""

import argparse
import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nuclei_unet.commands.targets import EACH, TOGETHER, check_target, usable
from nuclei_unet.errors import InputError

# Imported where they are used: they would take half a second whenever any command starts.
if TYPE_CHECKING:
    import numpy as np

    from nuclei_unet.formats.label_sources import Source

FORMATS = (*EACH, *TOGETHER)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a file, or a folder of them")
    parser.add_argument("target", type=Path, metavar="TARGET", help="a folder; for rle and coco a file")
    parser.add_argument("--to", required=True, choices=FORMATS, help="format of TARGET")
    parser.add_argument("--from", dest="origin", choices=FORMATS, help="format of SOURCE; default: by its files")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="the images, for their sizes and file names")
    parser.add_argument("--shape", type=_shape, metavar="HxW", help="height and width of all images, in pixels")
    parser.add_argument("--pixel-size", type=_positive, metavar="UM", help="micrometres; default: from SOURCE")
    parser.add_argument("--overwrite", action="store_true", help="replace what exists in TARGET")


def _shape(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,9})x([1-9]\d{0,9})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no height and width, such as 1024x2048")
    return int(match[1]), int(match[2])


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def main(arguments: argparse.Namespace) -> int:
    """Convert all label images. Return 1 if one could not be converted, else 0.

    Raises InputError if nothing can be converted.
    """
    from nuclei_unet.formats import label_sources
    from nuclei_unet.formats.image_sizes import image_files

    # Of a damaged file we say what is wrong ourselves, in one line.
    for library in ("tifffile", "roifile"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    source, target, to = arguments.source, arguments.target, arguments.to
    origin = arguments.origin or label_sources.guess(source)
    found = label_sources.find(source, origin)
    if arguments.shape and not any(one.needs_shape for one in found.values()):
        raise InputError(f"--shape: {source} says how large its images are; leave --shape out")
    files = image_files(arguments.images) if arguments.images else {}
    names, faults = usable(found) if to in EACH else (list(found), [])
    check_target(source, origin, target, to, names, arguments.overwrite)

    guessed: list[str] = []
    sources = {name: found[name] for name in names}
    images = _read(sources, arguments, files, faults, guessed)
    if to in EACH:
        write = _writer(to)
        for name, labels in images:
            with _noted(name, faults):
                write(target, name, labels, arguments.pixel_size or _pixel_size(sources[name], to))
    else:
        _write_together(target, to, sources, images, files)
    if guessed:
        note = f"note: the size of {len(guessed)} images is not known (first: {guessed[0]}); each has the smallest"
        print(f"{note} that holds all its nuclei. --images or --shape gives it", file=sys.stderr)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    print(f"{len(found) - len(faults)} of {len(found)} images are in {target}")
    return 1 if faults else 0


def _read(
    sources: dict[str, "Source"],
    arguments: argparse.Namespace,
    files: dict[str, tuple[Path, str]],
    faults: list[str],
    guessed: list[str],
) -> Iterator[tuple[str, "np.ndarray"]]:
    """Yield name and label image of each source; note those that cannot be read, and those whose size is a guess."""
    from nuclei_unet.formats.image_sizes import size_of

    for name, source in tqdm(sources.items(), "convert", unit="image", disable=None):
        labels = None
        with _noted(name, faults):
            if not source.needs_shape:
                labels = source.load()
            else:
                shape = arguments.shape or (size_of(name, files, arguments.images) if arguments.images else None)
                labels = source.load(shape)
                if shape is None:
                    guessed.append(name)
        if labels is not None:
            yield name, labels


@contextlib.contextmanager
def _noted(name: str, faults: list[str]) -> Iterator[None]:
    """Note an error of one image in one line, and go on."""
    try:
        yield
    except InputError as error:
        faults.append(str(error))
    except OSError as error:
        faults.append(f"{error.filename or name}: {error.strerror or error}")


def _pixel_size(source: "Source", to: str) -> float | None:
    from nuclei_unet.formats.image_sizes import pixel_size_of

    return pixel_size_of(source.file) if source.file and to in ("tiff", "ome-zarr") else None


def _writer(to: str) -> Callable[[Path, str, "np.ndarray", float | None], None]:
    """Return the function that writes one image into the target folder."""
    from nuclei_unet.formats import geojson, kaggle, label_tiff, rois, zarr_labels

    return {
        "tiff": lambda folder, name, labels, size: label_tiff.write_labels(folder / f"{name}{EACH[to]}", labels, size),
        "ome-zarr": lambda folder, name, labels, size: zarr_labels.write(folder / f"{name}{EACH[to]}", labels, size),
        "geojson": lambda folder, name, labels, size: geojson.write(folder / f"{name}{EACH[to]}", labels),
        "rois": lambda folder, name, labels, size: rois.write(folder / f"{name}{EACH[to]}", labels),
        "kaggle": lambda folder, name, labels, size: kaggle.write_masks(folder, name, labels),
    }[to]


class NothingRead(Exception):
    """Not a single image could be read."""


def _write_together(
    target: Path,
    to: str,
    sources: dict[str, "Source"],
    images: Iterable[tuple[str, "np.ndarray"]],
    files: dict[str, tuple[Path, str]],
) -> None:
    """Write all images into one file; none if no image can be read."""
    from nuclei_unet.formats import coco, kaggle

    def named() -> Iterator[tuple[str, "np.ndarray"]]:
        empty = True
        for name, labels in images:
            empty = False
            # COCO names the file of an image.
            title = files[name][1] if name in files else sources[name].title
            yield (title if to == "coco" and title else name), labels
        if empty:
            raise NothingRead

    with contextlib.suppress(NothingRead):
        (coco.write if to == "coco" else kaggle.write_csv)(target, named())
