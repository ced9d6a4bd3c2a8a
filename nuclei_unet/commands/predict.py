"""Find the nuclei of images: files, folders or globs in, label images and tables out.

nuclei-unet predict images/ results/
nuclei-unet predict slide.zarr out.zarr
nuclei-unet predict images/ results/ --write geojson,rois --channel DAPI
nuclei-unet predict 'plate*/**/*.tif' results/ --pixel-size 0.65
nuclei-unet predict images/ results/ --scheduler tcp://host:8786

Each image gets NAME_labels.tif; all together measurements.csv, summary.html and run.json. Every plane of a stack or
time series is an image by itself, unless --project makes one of them. A second start goes on where the first one
stopped.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from tqdm import tqdm

from nuclei_unet import cluster
from nuclei_unet.commands import running
from nuclei_unet.errors import InputError, one_line
from nuclei_unet.files import remove_unfinished
from nuclei_unet.formats.imagefile import without_suffix
from nuclei_unet.formats.zarr_images import is_zarr
from nuclei_unet.prediction.scale import scale_for

if TYPE_CHECKING:  # loaded late: it brings what images are computed with
    from nuclei_unet.results.results import Outcome

# Part of every result's key: raise it when a change to the code makes older results differ.
GENERATION = 1


@dataclass(frozen=True)
class Options:
    """What is the same for all images of a run. Sent to each worker, so paths are absolute."""

    folder: Path
    model: Path
    engine: str
    threads: int | None  # None: as many as a worker of the cluster has
    views: str | None
    channel: str | None
    axes: str | None
    project: str | None
    pixel_size: float | None
    scale: float | None
    formats: tuple[str, ...]
    overwrite: bool
    key: str  # of all that decides about the results


@dataclass(frozen=True)
class Task:
    """One input file, absolute and as the user named it, and the name of its results."""

    path: Path
    source: str
    name: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command understands."""
    parser.add_argument("inputs", nargs="+", metavar="IMAGES", help="files, folders (with subfolders), quoted globs")
    parser.add_argument("folder", type=Path, metavar="RESULTS", help="folder for the results; is made")
    parser.add_argument("--model", help="a .keras, .onnx or .zip file, or an address; default: the pretrained model")
    parser.add_argument(
        "--write",
        action="append",
        default=[],
        metavar="FORMATS",
        help="more files, separated by commas: geojson (QuPath), rois (ImageJ), overlay (PNG), ome-zarr, "
        "coco, rle (Kaggle), parquet",
    )
    parser.add_argument("--channel", help="number (from 0) or name; default: the one named DAPI, Hoechst or nuclei")
    parser.add_argument("--axes", help="order of dimensions where a file does not say, e.g. ZYX, TYX or CYX")
    parser.add_argument("--project", choices=("max", "mean"), help="make one image of a stack (or time series)")
    parser.add_argument("--pixel-size", type=_positive, metavar="UM", help="micrometres; default: from each file")
    parser.add_argument(
        "--scale",
        type=_positive,
        help="enlarge images by this factor before the network sees them; default: by the pixel size",
    )
    parser.add_argument(
        "--views",
        choices=("fast", "thorough"),
        help="fast: two views of each image; thorough: sixteen, some nine times slower; default: as the model says",
    )
    parser.add_argument("--engine", choices=("auto", "tensorflow", "onnx"), default="auto", help="default: auto")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=_count, metavar="N", help="processes, with one image each; default: 1")
    where.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster, such as tcp://host:8786, whose machines see the same folders; default: none, or, "
        f"without --jobs, what {cluster.VARIABLE} says",
    )
    parser.add_argument("--overwrite", action="store_true", help="also images that are done")


def main(arguments: argparse.Namespace) -> int:
    """Find the nuclei of all images; return the exit code: 1 if any image failed."""
    if is_slide(arguments):
        from nuclei_unet.commands import slide

        return slide.main(arguments)
    from nuclei_unet.formats.reading import find_images
    from nuclei_unet.formats.registry import check_writable
    from nuclei_unet.results import results

    started = time.monotonic()
    folder = arguments.folder
    formats = tuple(dict.fromkeys(name for text in arguments.write for name in text.split(",") if name))
    check_writable(formats)
    tasks = named(find_images(arguments.inputs))
    check_folder(arguments.inputs, folder, tasks)
    chosen = running.chosen(arguments, len(tasks))
    options = Options(
        folder=folder.absolute(),
        model=chosen.model,
        engine=chosen.engine,
        threads=chosen.threads,
        formats=formats,
        key="",
        **{name: getattr(arguments, name) for name in
           ("views", "channel", "axes", "project", "pixel_size", "scale", "overwrite")},
    )  # fmt: skip
    names = ("engine", "views", "channel", "axes", "project", "pixel_size", "scale")
    facts = {name: getattr(arguments, name) for name in names} | {"formats": formats}
    options = replace(options, key=running.digest([GENERATION, chosen.digest, facts]))

    with running.locked(folder):
        found = run(tasks, options, chosen.jobs, chosen.scheduler)
        described = {
            "versions": results.versions(),
            "model": chosen.about,
            "parameters": facts,
            "seconds": round(time.monotonic() - started, 1),
        }
        results.finish(found, folder, formats, described)
    failed = sum(outcome.error is not None for outcome in found)
    skipped = sum(outcome.before for outcome in found)
    nuclei = sum(outcome.count for outcome in found)
    before = f" ({skipped} were done before)" if skipped else ""
    print(f"{plural(len(found) - failed, 'image')}, {nuclei:,} nuclei in {folder}{before}")
    if options.project:
        print(f"stacks, and time series without Z, were projected to one image: {options.project}")
    elif any(outcome.plane for outcome in found):
        print("each plane of a stack or time series is an image by itself; --project max makes one of them")
    running.warn_of_engines({outcome.engine for outcome in found if outcome.engine and not outcome.before})
    warned = sum(outcome.warned for outcome in found)
    print(f"open {folder / results.SUMMARY}" + (f": warnings about {plural(warned, 'image')}" if warned else ""))
    if failed:
        print(f"error: {failed} of {len(found)} failed, as said above and in {results.RUN}", file=sys.stderr)
    return 1 if failed else 0


def is_slide(arguments: argparse.Namespace) -> bool:
    """Tell whether the command was given one OME-Zarr folder, and a name for another."""
    one = len(arguments.inputs) == 1 and arguments.folder.suffix.lower() == ".zarr"
    return one and is_zarr(Path(arguments.inputs[0]))


def plural(count: int, thing: str) -> str:
    """Return a number of things in words."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def named(found: Sequence[tuple[Path, PurePath]]) -> list[Task]:
    """Name each file's results after it, with its subfolder; with its ending, too, where names would be the same."""
    # Compared without case, as many disks do.
    stems = [(path, str(without_suffix(relative))) for path, relative in found]
    count: dict[str, int] = {}
    for _, stem in stems:
        count[stem.casefold()] = count.get(stem.casefold(), 0) + 1
    names = [stem if count[stem.casefold()] == 1 else str(relative)
             for (_, stem), (_, relative) in zip(stems, found, strict=True)]  # fmt: skip
    tasks, used = [], set()
    for (path, _), name in zip(found, names, strict=True):
        # The same name from different folders that were given one by one.
        unique, number = name, 2
        while unique.casefold() in used:
            unique, number = f"{name}-{number}", number + 1
        used.add(unique.casefold())
        tasks.append(Task(path.absolute(), str(path), Path(unique).as_posix()))
    return tasks


def check_folder(inputs: Sequence[str], folder: Path, tasks: Sequence[Task]) -> None:
    """Raise InputError if results would land among the inputs, over one of them, or over files of somebody else."""
    from nuclei_unet.results import results

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; the last argument is the folder for the results")
    here = folder.resolve()
    for name in inputs:
        if Path(name).is_dir() and here.is_relative_to(Path(name).resolve()):
            raise InputError(f"{folder}: lies in the folder of images {name}; choose a folder outside of it")
    sources = {task.path.resolve() for task in tasks}
    for task in tasks:
        written = [folder / f"{task.name}{end}" for end in (results.LABELS, *results.EACH.values())]
        for path in written:
            if path.resolve() in sources:
                raise InputError(f"{path}: is an input, and would be overwritten; choose another folder for results")
            if path.exists() and not (folder / results.STATE).exists():
                raise InputError(f"{path}: exists, and is not from nuclei-unet; choose another folder for results")


def run(tasks: Sequence[Task], options: Options, jobs: int, scheduler: str | None = None) -> "list[Outcome]":
    """Segment all files; return the outcomes of all planes in the order of the tasks."""
    found: list[list] = [[] for _ in tasks]
    done = 0
    with cluster.open_pool(jobs, scheduler) as pool, tqdm(
        total=len(tasks), unit="image", disable=None, smoothing=0.1
    ) as bar:  # fmt: skip
        try:
            for number, outcomes in pool.run(segment_file, tasks, options):
                found[number] = _of(tasks[number], outcomes, options.folder)
                done += 1
                bar.update()
                _tell(found[number], "failed, tried again at the end" if scheduler else "failed")
            # A file may have been away for a moment, or a machine without a package.
            again = [number for number in range(len(tasks)) if scheduler and any(o.error for o in found[number])]
            for place, outcomes in pool.run(segment_file, [tasks[number] for number in again], options):
                found[again[place]] = _of(tasks[again[place]], outcomes, options.folder)
                _tell(found[again[place]], "failed again")
        except KeyboardInterrupt:
            bar.close()
            running.interrupted(pool, options.folder, f"{done} of {len(tasks)} files")
    if scheduler or jobs > 1:
        remove_unfinished(options.folder)  # of workers that were killed
    return [outcome for outcomes in found for outcome in outcomes]


def _of(task: Task, outcomes: "list[Outcome] | cluster.Lost", folder: Path) -> "list[Outcome]":
    """Return the outcomes of a file, or, if all workers died of it, one that says so."""
    from nuclei_unet.results import results

    if isinstance(outcomes, cluster.Lost):
        return [results.Result(task.name, task.source, error=f"{task.source}: {outcomes.reason}").keep(folder)]
    return outcomes


def _tell(outcomes: "Sequence[Outcome]", how: str) -> None:
    for outcome in outcomes:
        if outcome.error is not None:
            tqdm.write(f"{how}: {one_line(outcome.error)}", file=sys.stderr)


def segment_file(task: Task, options: Options) -> "list[Outcome]":
    """Segment all planes of a file, and write their results; return their outcomes.

    Whatever is wrong with the file is the error of its outcome. Raises InputError if results cannot be written.
    """
    from nuclei_unet.formats.planes import planes
    from nuclei_unet.formats.reading import open_images
    from nuclei_unet.results import results

    cluster.check_seen(options.folder / results.STATE)
    try:
        status = task.path.stat()
        key = running.digest([options.key, str(task.path), status.st_size, status.st_mtime_ns])
        parts = [
            (image, plane)
            for image in open_images(task.path, options.axes)
            for plane in planes(image, options.channel, options.project)
        ]
    except Exception as error:
        reason = _reason(error, task, options.folder)
        return [results.Result(task.name, task.source, error=reason).keep(options.folder)]
    found = []
    for image, plane in parts:
        result = results.Result(
            f"{task.name}{plane.suffix}",
            task.source,
            key=key,
            plane=plane.suffix.strip("_"),
            axes=image.axes,
            shape=tuple(image.shape),
            channel=plane.channel,
            pixel_size=options.pixel_size or image.pixel_size,
            pixel_size_from="--pixel-size" if options.pixel_size else image.pixel_size_from,
        )
        before = None if options.overwrite else results.read(options.folder, result.name, key)
        if before is not None:
            found.append(before.outcome(before=True))
            continue
        segmenter, engine = running.segmenter(options.model, options.engine, options.threads, options.views)
        scale = options.scale or scale_for(result.pixel_size, segmenter.metadata.diameters)
        result = replace(result, scale=scale, engine=engine)
        try:
            result = results.segment(segmenter, plane, result, options.folder, options.formats)
        except Exception as error:
            result = replace(result, error=_reason(error, task, options.folder))
        found.append(result.keep(options.folder))
    return found


def _reason(error: Exception, task: Task, folder: Path) -> str:
    """Return in one line why an image could not be done. Raises InputError if no other could be done either."""
    from nuclei_unet.results import results

    if isinstance(error, OSError) and results.fatal(error, folder):
        where = error.filename or folder
        raise InputError(f"{where}: cannot be written ({error.strerror or error}); {task.source} is not done") from None
    if isinstance(error, InputError):
        reason = str(error)
    elif isinstance(error, MemoryError):
        reason = "not enough memory for an image of this size"
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
    else:  # of a library, on a file that it did not expect
        first = next(iter(str(error).strip().splitlines()), "")[:120]
        reason = f"failed unexpectedly ({type(error).__name__}: {first})"
    reason = reason.replace(str(task.path), task.source)
    return reason if task.source in reason else f"{task.source}: {reason}"


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 10_000:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0 and below 10,000")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 256:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 to 256")
    return value
