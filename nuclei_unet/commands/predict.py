"""Find the nuclei of images: files, folders or globs in, label images and tables out.

nuclei-unet predict images/ results/
nuclei-unet predict slide.zarr out.zarr
nuclei-unet predict images/ results/ --write geojson,rois --channel DAPI
nuclei-unet predict 'plate*/**/*.tif' results/ --diameter 30
nuclei-unet predict images/ results/ --scheduler tcp://host:8786

Each image gets NAME_labels.tif; all together measurements.csv, summary.html and run.json. Every plane of a stack or
time series is an image by itself, unless --project makes one of them. A second start goes on where the first one
stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nuclei_unet.batch import pool
from nuclei_unet.commands.arguments import count, positive
from nuclei_unet.errors import InputError, plural

if TYPE_CHECKING:  # loaded late: it brings what images are computed with
    from nuclei_unet.batch.run import RunSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command understands."""
    add = parser.add_argument
    add("inputs", nargs="+", metavar="IMAGES", help="files, folders (with subfolders), quoted globs")
    add("folder", type=Path, metavar="RESULTS", help="folder for the results; is made")
    add("--model", help="an .onnx or .zip file, or an address; default: the pretrained model")
    add("--write", action="append", default=[], metavar="FORMATS",
        help="more files, separated by commas: geojson (QuPath), rois (ImageJ), overlay (PNG), ome-zarr, coco, "
        "rle (Kaggle), parquet")  # fmt: skip
    add("--channel", help="number (from 0) or name; default: the one named DAPI, Hoechst or nuclei")
    add("--axes", help="order of dimensions where a file does not say, e.g. ZYX, TYX or CYX")
    add("--project", choices=("max", "mean"), help="make one image of a stack (or time series)")
    add("--pixel-size", type=positive, metavar="UM", help="micrometres; default: from each file")
    add("--diameter", type=positive, metavar="PX",
        help="of a typical nucleus, px (of a slide: at its finest level); default: estimated by image")  # fmt: skip
    add("--fast", action="store_true", help="predict each image once, at a smaller size, instead of twice")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=count, metavar="N", help="processes, with one image each; default: 1")
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster, such as tcp://host:8786, whose machines see the same folders; default: none, or, "
        f"without --jobs, what {pool.VARIABLE} says (needs the extra dask)",
    )
    add("--overwrite", action="store_true", help="also images that are done")


def main(arguments: argparse.Namespace) -> int:
    """Find the nuclei of all images, or of a slide; return the exit code: 1 if any image failed."""
    from nuclei_unet.batch.run import RunSettings
    from nuclei_unet.formats.registry import check_writable
    from nuclei_unet.formats.zarr_images import is_zarr

    formats = tuple(dict.fromkeys(name for text in arguments.write for name in text.split(",") if name))
    check_writable(formats)
    chosen = ("folder", "model", "fast", "channel", "axes", "project", "pixel_size", "diameter", "overwrite")
    settings = RunSettings(
        **{name: getattr(arguments, name) for name in chosen},
        formats=formats,
        jobs=arguments.jobs or 1,
        scheduler=None if arguments.jobs else pool.address(arguments.scheduler),
    )
    is_slide = len(arguments.inputs) == 1 and settings.folder.suffix.lower() == ".zarr"
    if is_slide and is_zarr(Path(arguments.inputs[0])):
        return _slide(Path(arguments.inputs[0]), settings)
    return _files(arguments.inputs, settings)


def _files(inputs: Sequence[str], settings: "RunSettings") -> int:
    from nuclei_unet.batch import files
    from nuclei_unet.results.record import RUN, SUMMARY

    results = files.segment(inputs, settings)
    failed = sum(result.error is not None for result in results)
    skipped = sum(result.before for result in results)
    nuclei = sum(result.count or 0 for result in results)
    warned = sum(bool(result.warnings) for result in results)
    before = f" ({skipped} were done before)" if skipped else ""
    print(f"{plural(len(results) - failed, 'image')}, {nuclei:,} nuclei in {settings.folder}{before}")
    if settings.project:
        print(f"stacks, and time series without Z, were projected to one image: {settings.project}")
    elif any(result.plane for result in results):
        print("each plane of a stack or time series is an image by itself; --project max makes one of them")
    _warn_of_differences(files.computed_by(results))
    print(f"open {settings.folder / SUMMARY}" + (f": warnings about {plural(warned, 'image')}" if warned else ""))
    if failed:
        print(f"error: {failed} of {len(results)} failed, as said above and in {RUN}", file=sys.stderr)
    return 1 if failed else 0


def _slide(path: Path, settings: "RunSettings") -> int:
    from nuclei_unet.batch import slide

    for name in ("axes", "project", "formats"):
        if getattr(settings, name):
            option = name.replace("formats", "write")
            raise InputError(f"--{option}: not for slides; they become OME-Zarr and Parquet")
    done = slide.segment(path, settings, tell=lambda line: print(line, flush=True))
    _warn_of_differences(done["computed_by"])
    level = done["slide"]
    size = f"{level['pixel_size']:.4g} um a pixel" if level["pixel_size"] else "pixel size unknown"
    size = f"{level['height']:,} x {level['width']:,} (level {level['level']}, {size})"
    print(f"typical nucleus: {level['diameter']:g} px across ({level['diameter_from']})")
    before = " (was done before)" if done["before"] else ""
    print(f"1 slide {size}, {done['nuclei']:,} nuclei in {settings.folder}{before}")
    return 0


def _warn_of_differences(computed_by: Sequence[str]) -> None:
    if len(computed_by) > 1:
        print(f"warning: not all was computed alike, outlines may differ by a pixel: {'; '.join(computed_by)}")
