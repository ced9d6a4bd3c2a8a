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
import itertools
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nuclei_unet.commands import arguments as options
from nuclei_unet.errors import InputError
from nuclei_unet.formats import registry
from nuclei_unet.formats.registry import FORMATS, LabelSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a file, or a folder of them")
    parser.add_argument("target", type=Path, metavar="TARGET", help="a folder; for rle and coco a file")
    parser.add_argument("--to", required=True, choices=registry.READ, help="format of TARGET")
    parser.add_argument("--from", dest="origin", choices=registry.READ, help="format of SOURCE; default: by its files")
    options.add_sizes(parser)
    parser.add_argument("--pixel-size", type=options.positive, metavar="UM", help="micrometres; default: from SOURCE")
    parser.add_argument("--overwrite", action="store_true", help="replace what exists in TARGET")


def main(arguments: argparse.Namespace) -> int:
    """Convert all label images. Return 1 if one could not be converted, else 0.

    Raises InputError if nothing can be converted.
    """
    from nuclei_unet.formats.reading import Images

    # Of a damaged file we say what is wrong ourselves, in one line.
    for library in ("tifffile", "roifile"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    source, target, to = arguments.source, arguments.target, FORMATS[arguments.to]
    origin = arguments.origin or registry.guess(source)
    sources = registry.find_labels(source, origin)
    total = len(sources)
    if arguments.shape and not any(one.needs_shape for one in sources.values()):
        raise InputError(f"--shape: {source} says how large its images are; leave --shape out")
    images = Images(arguments.images, arguments.shape)
    faults = [] if to.together else drop_unusable(sources)
    outputs = [target] if to.together else [target / f"{name}{to.ending}" for name in sources]
    if target.exists() and target.is_dir() == to.together:
        raise InputError(f"{target}: is a {'folder' if to.together else 'file'}; {to.name} needs another TARGET")
    check_outputs(source, outputs, origin == to.name, arguments.overwrite)

    guessed: list[str] = []
    labels = _read(sources, images, faults, guessed)
    if to.together and (first := next(labels, None)):  # if no image can be read, no file is written
        titled = itertools.chain([first], labels)
        to.write_all(target, ((images.title(name) or sources[name].title or name, one) for name, one in titled))
    else:
        for name, one in labels:
            with _noted(name, faults):
                to.write(target, name, one, pixel_size=arguments.pixel_size or _pixel_size(sources[name], to))
    if guessed:
        note = f"note: the size of {len(guessed)} images is not known (first: {guessed[0]}); each has the smallest"
        print(f"{note} that holds all its nuclei. --images or --shape gives it", file=sys.stderr)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    print(f"{total - len(faults)} of {total} images are in {target}")
    return 1 if faults else 0


def drop_unusable(sources: dict[str, LabelSource]) -> list[str]:
    """Remove what cannot be the name of a file on any system; return one line for each."""
    kept: dict[str, str] = {}
    faults = []
    for name in list(sources):
        if not name.isprintable() or set(name) & set('\\:*?"<>|') or {"", ".", ".."} & set(name.split("/")):
            faults.append(f"image {name!r}: cannot be the name of a file; rename it")
        # Many disks do not tell upper from lower case.
        elif (first := kept.setdefault(name.casefold(), name)) != name:
            faults.append(f"image {name!r}: differs from {first!r} only in case; rename it")
        else:
            continue
        del sources[name]
    return faults


def check_outputs(source: Path, outputs: Iterable[Path], same_format: bool, overwrite: bool) -> None:
    """Raise InputError if something would be overwritten that must not be: what exists, or ever the source itself."""
    read, there = source.resolve(), []
    for output in outputs:
        path = output.resolve()
        if path == read or (same_format and read in path.parents):
            raise InputError(f"{output}: would be written into what is converted, {source}; choose another TARGET")
        if output.exists():
            there.append(output)
    if there and not overwrite:
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise InputError(f"{there[0]}: exists{more}; --overwrite replaces it")


def _read(sources, images, faults: list[str], guessed: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and label image of each source; note those that cannot be read, and those whose size is a guess."""
    for name, source in tqdm(sources.items(), "convert", unit="image", disable=None):
        labels = None
        with _noted(name, faults):
            shape = images.shape(name) if source.needs_shape else None
            labels = source.load(shape)
            if source.needs_shape and shape is None:
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


def _pixel_size(source: LabelSource, to: registry.Format) -> float | None:
    from nuclei_unet.formats.reading import open_images

    images = open_images(source.file) if source.file and "pixel_size" in to.takes else []
    return images[0].pixel_size if images else None
