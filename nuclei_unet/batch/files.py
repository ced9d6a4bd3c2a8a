"""Find the nuclei of many image files. Each plane gets a label image; all together tables and a summary page.

A second start with the same settings goes on where the first one stopped.
"""

import base64
import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
from tqdm import tqdm

from nuclei_unet.batch import pool, run
from nuclei_unet.batch.run import RunSettings
from nuclei_unet.errors import InputError, one_line
from nuclei_unet.files import remove_unfinished
from nuclei_unet.formats.imagefile import without_suffix
from nuclei_unet.formats.planes import Plane, planes
from nuclei_unet.formats.reading import find_images, open_images
from nuclei_unet.formats.registry import FORMATS
from nuclei_unet.formats.thumbnail import thumbnail
from nuclei_unet.prediction.checks import warnings
from nuclei_unet.results import record, tables
from nuclei_unet.results.record import STATE, Result


@dataclass(frozen=True)
class Task:
    """One input file, absolute and as the user named it, and the name of its results."""

    path: Path
    source: str
    name: str


def segment(inputs: Sequence[str], settings: RunSettings) -> list[Result]:
    """Find the nuclei of all images; return the results of their planes, without what only the disk keeps.

    `inputs` are files, folders and patterns. A file that cannot be segmented is a result with an error. Raises
    InputError if nothing can be done.
    """
    started = time.monotonic()
    tasks = named(find_images(inputs))
    folder = settings.folder
    check_folder(inputs, folder, tasks)
    model = run.choose_model(settings)
    settings = replace(settings, jobs=min(settings.jobs, len(tasks)))
    key = run.key(model.digest, settings.deciding)
    with run.locked(folder):
        results = _all(tasks, replace(settings, model=model.path, folder=folder.absolute(), key=key))
        facts = run.facts(model, settings)
        facts["computed_by"] = "; ".join(computed_by(results))
        facts["seconds"] = round(time.monotonic() - started, 1)
        tables.finish(results, folder, settings.formats, facts)
    return results


def computed_by(results: Sequence[Result]) -> list[str]:
    """Return what computed the results: one thing, unless machines differ."""
    return sorted({result.computed_by for result in results} - {""})


def named(files: Sequence[tuple[Path, PurePath]]) -> list[Task]:
    """Name each file's results after it, with its subfolder; with its ending, too, where names would be the same.

    `files` are paths, and the same relative to the folder that the user named.
    """
    # Compared without case, as many disks do.
    stems = [str(without_suffix(relative)) for _, relative in files]
    count = Counter(stem.casefold() for stem in stems)
    tasks, used = [], set()
    for (path, relative), stem in zip(files, stems, strict=True):
        name = unique = stem if count[stem.casefold()] == 1 else str(relative)
        # The same name from different folders that were given one by one.
        for number in itertools.count(2):
            if unique.casefold() not in used:
                break
            unique = f"{name}-{number}"
        used.add(unique.casefold())
        tasks.append(Task(path.absolute(), str(path), Path(unique).as_posix()))
    return tasks


def check_folder(inputs: Sequence[str], folder: Path, tasks: Sequence[Task]) -> None:
    """Raise InputError if results would land among the inputs, over one of them, or over files of somebody else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; the last argument is the folder for the results")
    here = folder.resolve()
    for name in inputs:
        if Path(name).is_dir() and here.is_relative_to(Path(name).resolve()):
            raise InputError(f"{folder}: lies in the folder of images {name}; choose a folder outside of it")
    sources = {task.path.resolve() for task in tasks}
    endings = [form.ending for form in FORMATS.values() if not form.together]
    for path in (folder / f"{task.name}{ending}" for task in tasks for ending in endings):
        if path.resolve() in sources:
            raise InputError(f"{path}: is an input, and would be overwritten; choose another folder for results")
        if path.exists() and not (folder / STATE).exists():
            raise InputError(f"{path}: exists, and is not from nuclei-unet; choose another folder for results")


def _all(tasks: Sequence[Task], settings: RunSettings) -> list[Result]:
    """Segment all files; return the results of all planes in the order of the tasks."""
    results: list[list[Result]] = [[] for _ in tasks]

    def each(workers: pool.Pool, numbers: Sequence[int], how: str) -> Iterator[None]:
        for place, made in workers.run(segment_file, [tasks[number] for number in numbers], settings):
            task = tasks[numbers[place]]
            if isinstance(made, pool.Lost):
                made = [Result(task.name, task.source, error=f"{task.source}: {made.reason}").keep(settings.folder)]
            results[numbers[place]] = made
            yield
            for error in (result.error for result in made if result.error is not None):
                tqdm.write(f"{how}: {one_line(error)}", file=sys.stderr)

    try:
        with (
            tqdm(total=len(tasks), unit="image", disable=None, smoothing=0.1) as bar,
            pool.open_pool(settings.jobs, settings.scheduler) as workers,
        ):
            how = "failed, tried again at the end" if settings.scheduler else "failed"
            for _ in each(workers, range(len(tasks)), how):
                bar.update()
            # A file may have been away for a moment, or a machine without a package.
            failed = [number for number, made in enumerate(results) if any(result.error for result in made)]
            for _ in each(workers, failed if settings.scheduler else [], "failed again"):
                pass
    except KeyboardInterrupt:
        remove_unfinished(settings.folder)  # the folder is locked: nobody else writes there
        raise KeyboardInterrupt(f"{sum(map(bool, results))} of {len(tasks)} files") from None
    if settings.scheduler or settings.jobs > 1:
        remove_unfinished(settings.folder)  # of workers that were killed
    return [result for made in results for result in made]


def segment_file(task: Task, settings: RunSettings) -> list[Result]:
    """Segment all planes of a file, and write and keep their results; return them.

    Whatever is wrong with the file is the error of its result. Raises InputError if results cannot be written.
    """
    pool.check_seen(settings.folder / STATE)
    try:
        status = task.path.stat()
        key = run.key(settings.key, str(task.path), status.st_size, status.st_mtime_ns)
        parts = [
            (image, plane)
            for image in open_images(task.path, settings.axes)
            for plane in planes(image, settings.channel, settings.project)
        ]
    except Exception as error:
        reason = _reason(error, task, settings.folder)
        return [Result(task.name, task.source, error=reason).keep(settings.folder)]
    results = []
    for image, plane in parts:
        name = f"{task.name}{plane.suffix}"
        before = None if settings.overwrite else record.find(settings.folder, name, key)
        if before is not None:
            results.append(before.brief(before=True))
            continue
        result = Result(
            name,
            task.source,
            key=key,
            plane=plane.suffix.strip("_"),
            axes=image.axes,
            shape=tuple(image.shape),
            channel=plane.channel,
            pixel_size=settings.pixel_size or image.pixel_size,
            pixel_size_from="the user" if settings.pixel_size else image.pixel_size_from,
        )
        run.segmenter(settings)  # without it nothing can be done
        try:
            result = segment_plane(plane, result, settings)
        except Exception as error:
            result = replace(result, error=_reason(error, task, settings.folder))
        results.append(result.keep(settings.folder))
    return results


def segment_plane(plane: Plane, result: Result, settings: RunSettings) -> Result:
    """Find the nuclei of one plane, write its files, and return the result to keep; `result` is what is known."""
    started = time.monotonic()
    segmenter, computed_by = run.segmenter(settings)
    seen, channels = plane.read()
    labels, diameter = segmenter.find(seen, diameter=settings.diameter, pixel_size=result.pixel_size)
    table = segmenter.measure(labels, channels, pixel_size=result.pixel_size, channels=plane.channels)
    known = {"pixel_size": result.pixel_size, "image": seen, "channels": channels, "measurements": table}
    written = [form for form in FORMATS.values()
               if form.name == "tiff" or (form.name in settings.formats and not form.together)]  # fmt: skip
    for form in written:
        form.write(settings.folder, result.name, labels, **known)
    used = {"typical_diameter": diameter.px or np.nan, "typical_diameter_from": diameter.source}
    tables.keep_rows(
        settings.folder, result.name, table | {key: np.full(len(table["label"]), value) for key, value in used.items()}
    )
    return replace(
        result,
        diameter=diameter.px or None,
        diameter_from=diameter.source,
        computed_by=computed_by,
        height=labels.shape[0],
        width=labels.shape[1],
        count=int(labels.max(initial=0)),
        seconds=round(time.monotonic() - started, 3),
        warnings=tuple(warnings(seen, labels, diameter, result.pixel_size)),
        outputs=tuple(f"{result.name}{form.ending}" for form in written),
        diameters=tuple(np.round(table["equivalent_diameter_area"], 2).tolist()),
        thumbnail=base64.b64encode(thumbnail(seen, labels)).decode(),
    )


def _reason(error: Exception, task: Task, folder: Path) -> str:
    """Return in one line why an image could not be done. Raises InputError if no other could be done either."""
    if isinstance(error, OSError):
        where = os.fspath(error.filename) if error.filename else folder
        # About the disk or the folder of results.
        if Path(where).absolute().is_relative_to(folder.absolute()):
            reason = f"cannot be written ({error.strerror or error}); {task.source} is not done"
            raise InputError(f"{where}: {reason}") from None
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
