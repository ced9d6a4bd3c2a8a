"""Find the nuclei of images: files, folders or globs in, label images and tables out.

nuclei-unet predict images/ results/
nuclei-unet predict slide.zarr out.zarr
nuclei-unet predict images/ results/ --write geojson,rois --channel DAPI
nuclei-unet predict 'plate*/**/*.tif' results/ --pixel-size 0.65

Each image gets NAME_labels.tif; all together measurements.csv, summary.html and run.json. Every plane of a stack or
time series is an image by itself, unless --project makes one of them. A second start goes on where the first one
stopped.
"""

import argparse
import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import filelock
from tqdm import tqdm

from nuclei_unet.errors import InputError, one_line
from nuclei_unet.formats.imagefile import without_suffix
from nuclei_unet.prediction.scale import scale_for

# Part of every result's key: raise it when a change to the code makes older results differ.
GENERATION = 1


@dataclass(frozen=True)
class Options:
    """What is the same for all images of a run; pickled for each process."""

    folder: Path
    model: Path
    engine: str
    threads: int
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
    """One input file and the name of its results."""

    path: Path
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
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="images at the same time; default: 1")
    parser.add_argument("--overwrite", action="store_true", help="also images that are done")


def main(arguments: argparse.Namespace) -> int:
    """Find the nuclei of all images; return the exit code: 1 if any image failed."""
    from nuclei_unet.commands import results, slide
    from nuclei_unet.formats.reading import find_images
    from nuclei_unet.network import untrusted
    from nuclei_unet.prediction import models

    if slide.wanted(arguments):
        return slide.main(arguments)
    started = time.monotonic()
    folder = arguments.folder
    formats = tuple(dict.fromkeys(name for text in arguments.write for name in text.split(",") if name))
    results.check_formats(formats)
    tasks = named(find_images(arguments.inputs))
    check_folder(arguments.inputs, folder, tasks)
    # Found once: an address may lead elsewhere a minute later.
    path = models.find(arguments.model)
    jobs = min(arguments.jobs, len(tasks))
    threads = max(_cores() // jobs, 1)
    untrusted.check(path, threads)
    card, _, digest = models.describe(path)
    if card.recipe.predict is None:
        raise InputError(
            f"{arguments.model}: was trained but not evaluated; run `dvc repro evaluate` and use what it writes"
        )
    options = Options(
        folder=folder,
        model=path,
        engine=arguments.engine,
        threads=threads,
        formats=formats,
        key="",
        **{name: getattr(arguments, name) for name in
           ("views", "channel", "axes", "project", "pixel_size", "scale", "overwrite")},
    )  # fmt: skip
    facts = {name: getattr(options, name) for name in
             ("engine", "views", "channel", "axes", "project", "pixel_size", "scale", "formats")}  # fmt: skip
    options = replace(options, key=_digest([GENERATION, digest, facts]))

    with locked(folder):
        found, skipped = run(tasks, options, jobs)
        described = {
            "versions": results.versions(),
            "model": {"name": arguments.model or "pretrained", "sha256": digest, "commit": card.recipe.commit},
            "parameters": facts,
            "seconds": round(time.monotonic() - started, 1),
        }
        results.finish(found, folder, formats, described)
    failed = [result for result in found if result.error is not None]
    nuclei = sum(result.count or 0 for result in found)
    before = f" ({skipped} were done before)" if skipped else ""
    print(f"{plural(len(found) - len(failed), 'image')}, {nuclei:,} nuclei in {folder}{before}")
    if options.project:
        print(f"stacks, and time series without Z, were projected to one image: {options.project}")
    elif any(result.plane for result in found):
        print("each plane of a stack or time series is an image by itself; --project max makes one of them")
    warned = sum(bool(result.warnings) for result in found)
    print(f"open {folder / results.SUMMARY}" + (f": warnings about {plural(warned, 'image')}" if warned else ""))
    if failed:
        print(f"error: {len(failed)} of {len(found)} failed, as said above and in {results.RUN}", file=sys.stderr)
    return 1 if failed else 0


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
        tasks.append(Task(path, Path(unique).as_posix()))
    return tasks


def check_folder(inputs: Sequence[str], folder: Path, tasks: Sequence[Task]) -> None:
    """Raise InputError if results would land among the inputs, over one of them, or over files of somebody else."""
    from nuclei_unet.commands import results

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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder of results, which is made."""
    from nuclei_unet.commands import results

    lock = filelock.FileLock(folder / results.STATE / "lock", blocking=False)
    try:
        (folder / results.STATE).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"{folder}: another run is writing there; wait for it or stop it") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()


def run(tasks: Sequence[Task], options: Options, jobs: int) -> tuple[list, int]:
    """Segment all files; return the results of all planes in the order of the tasks, and how many were done before."""
    pool = (
        ThreadPoolExecutor(1)
        if jobs == 1
        else ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _ignore_interrupts)
    )
    found: dict[int, list] = {}
    skipped = 0
    bar = tqdm(total=len(tasks), unit="image", disable=None, smoothing=0.1)
    try:
        waiting = iter(enumerate(tasks))
        running: dict[Future, int] = {}
        while len(found) < len(tasks):
            # A few ahead, not all: a million tasks would take memory.
            for number, task in waiting:
                running[pool.submit(segment_file, task, options)] = number
                if len(running) >= 2 * jobs:
                    break
            ready, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                number = running.pop(future)
                found[number], before = future.result()
                skipped += before
                for result in found[number]:
                    if result.error is not None:
                        bar.write(f"failed: {one_line(result.error)}", file=sys.stderr)
                bar.update()
    except BrokenProcessPool:
        _stop(pool, options.folder)
        raise InputError("a process was ended from outside, for lack of memory perhaps; use fewer --jobs") from None
    except KeyboardInterrupt:
        bar.close()
        _stop(pool, options.folder)
        done = f"interrupted; {len(found)} of {len(tasks)} files are done, and the same command goes on from there"
        print(done, file=sys.stderr, flush=True)
        # Threads cannot be stopped, and may be deep in a computation.
        os._exit(130)
    except BaseException:
        bar.close()
        pool.shutdown(cancel_futures=True)
        raise
    bar.close()
    pool.shutdown()
    return [result for number in sorted(found) for result in found[number]], skipped


def segment_file(task: Task, options: Options) -> tuple[list, int]:
    """Segment all planes of a file; return their results, and how many were done before.

    Whatever is wrong with the file is the error of its result. Raises InputError if results cannot be written.
    """
    from nuclei_unet.commands import results
    from nuclei_unet.formats.planes import planes
    from nuclei_unet.formats.reading import open_images

    found, skipped = [], 0
    try:
        status = task.path.stat()
        key = _digest([options.key, str(task.path.absolute()), status.st_size, status.st_mtime_ns])
        parts = [
            (image, plane)
            for image in open_images(task.path, options.axes)
            for plane in planes(image, options.channel, options.project)
        ]
    except Exception as error:
        reason = _reason(error, task.path, options.folder)
        return [results.Result(task.name, str(task.path), error=reason)], 0
    for image, plane in parts:
        result = results.Result(
            f"{task.name}{plane.suffix}",
            str(task.path),
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
            found.append(before)
            skipped += 1
            continue
        segmenter, engine = _segmenter(options.model, options.engine, options.threads, options.views)
        scale = options.scale or scale_for(result.pixel_size, segmenter.card.diameters)
        result = replace(result, scale=scale, engine=engine)
        try:
            result = results.segment(segmenter, plane, result, options.folder, options.formats)
        except Exception as error:
            result = replace(result, error=_reason(error, task.path, options.folder))
        found.append(result)
    return found, skipped


def _reason(error: Exception, path: Path, folder: Path) -> str:
    """Return in one line why an image could not be done. Raises InputError if no other could be done either."""
    from nuclei_unet.commands import results

    if isinstance(error, OSError) and results.fatal(error, folder):
        where = error.filename or folder
        raise InputError(f"{where}: cannot be written ({error.strerror or error}); {path} is not done") from None
    if isinstance(error, InputError):
        reason = str(error)
    elif isinstance(error, MemoryError):
        reason = "not enough memory for an image of this size"
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
    else:  # of a library, on a file that it did not expect
        first = next(iter(str(error).strip().splitlines()), "")[:120]
        reason = f"failed unexpectedly ({type(error).__name__}: {first})"
    return reason if str(path) in reason else f"{path}: {reason}"


@functools.cache  # one model a process
def _segmenter(model: Path, engine: str, threads: int, views: str | None):
    from nuclei_unet.prediction import models
    from nuclei_unet.prediction.segmenter import Segmenter

    opened = models.load(model, engine=engine, threads=threads)
    card = opened.card
    if views:
        recipe = card.recipe.model_copy(update={"predict": card.recipe.predict.with_views(views)})
        card = card.model_copy(update={"recipe": recipe})
    return Segmenter(opened.network, card), opened.engine


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stop(pool: ThreadPoolExecutor | ProcessPoolExecutor, folder: Path) -> None:
    """Stop at once, and remove what was half written: the lock is ours, so nobody else writes there."""
    for process in (getattr(pool, "_processes", None) or {}).values():
        process.kill()
        process.join()
    for path in folder.rglob("*"):
        if path.name.startswith(".partial-"):
            path.unlink(missing_ok=True)
        elif path.name.endswith(".partial"):
            shutil.rmtree(path, ignore_errors=True)


def _ignore_interrupts() -> None:
    """Leave Ctrl-C, which the terminal sends to all processes, to the first one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, default=str, sort_keys=True).encode()).hexdigest()


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
