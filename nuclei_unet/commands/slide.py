"""Find the nuclei of a slide: an OME-Zarr too large for memory in, an OME-Zarr with labels and a table out.

A slide is predicted in the same tiles as any image, and the result is the same to the pixel. Memory is bounded by
what a worker needs for a tile. Four passes, each in any number of processes: sample the pixels, which decides how
they are normalized; predict the tiles, whose nuclei are numbered on the way, in order; write the labels; measure.
"""

import argparse
import json
import math
import os
import shutil
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scipy import ndimage
from tqdm import tqdm

from nuclei_unet import cluster
from nuclei_unet.commands import running, slide_tasks
from nuclei_unet.commands.slide_tasks import SIDE, Share, Window, Work
from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file, remove_unfinished
from nuclei_unet.formats import parquet, zarr_labels
from nuclei_unet.formats.imagefile import ImageFile, without_suffix
from nuclei_unet.formats.planes import choose_channel, planes
from nuclei_unet.formats.zarr_images import MARKS, open_levels, window
from nuclei_unet.images import Intensities
from nuclei_unet.network.metadata import Diameters
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.prediction.scale import scale_for
from nuclei_unet.prediction.tiles import Tile, match, relative
from nuclei_unet.results.results import RUN, STATE, TOGETHER, versions

# As of `predict`: raise it when a change to the code makes older results differ.
GENERATION = 1
TABLE = TOGETHER["parquet"]
# What OUT.zarr holds at the end. Anything else is somebody else's.
OURS = {STATE, ".zgroup", "labels", TABLE, RUN}


@dataclass(frozen=True)
class Slide:
    """The level of a slide that is segmented, and why."""

    level: int
    image: ImageFile
    pixel_size: float | None  # micrometres
    pixel_size_from: str
    scale: float
    line: str  # for the user

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.sizes["Y"], self.image.sizes["X"]


def main(arguments: argparse.Namespace) -> int:
    """Find the nuclei of a slide; return the exit code."""
    started = time.monotonic()
    path, folder = Path(arguments.inputs[0]), arguments.folder
    for name in ("write", "project", "axes"):
        if getattr(arguments, name):
            raise InputError(f"--{name}: not for slides; they become OME-Zarr and Parquet")
    parquet.check_installed(f"{folder}: a slide's table")
    _check_folder(path, folder)
    levels = open_levels(path)
    for level in levels:
        _check_level(level)
    chosen = running.chosen(arguments)
    metadata = chosen.metadata
    if metadata.normalize.image_size is not None:
        name = arguments.model or chosen.model
        raise InputError(f"{name}: sees images at one size only, so it cannot be used for slides")
    slide = choose_level(levels, metadata.diameters, arguments.pixel_size, arguments.scale)
    print(slide.line, flush=True)

    views = metadata.predict.with_views(arguments.views) if arguments.views else metadata.predict
    seen = tuple(max(round(side * slide.scale), 1) for side in slide.shape)
    # Without a network: cutting needs none.
    tiles = Predictor(None, metadata.network, views).cut(seen, slide.shape)
    names = ("engine", "views", "channel", "pixel_size", "scale")
    facts = {name: getattr(arguments, name) for name in names}
    about = [slide.level, slide.image.axes, slide.image.shape, str(slide.image.dtype), slide.pixel_size, slide.scale]
    tiling = [len(tiles), tiles[0].seen, tiles[0].seen_core]
    key = running.digest([GENERATION, chosen.digest, facts, str(path.absolute()), about, _marks(path), tiling])
    work = Work(
        slide=path.absolute(),
        level=slide.level,
        channel=choose_channel(slide.image, arguments.channel),
        pixel_size=slide.pixel_size,
        shape=slide.shape,
        seen=seen,
        model=chosen.model,
        engine=chosen.engine,
        threads=chosen.threads,
        views=arguments.views,
        state=folder.absolute() / STATE / key[:16],
        name=without_suffix(Path(path.name)).name,
    )
    existed = folder.exists()
    try:
        with running.locked(folder):
            before = None if arguments.overwrite else _done(folder, key)
            record = before or _run(work, tiles, folder, arguments.overwrite, chosen.jobs, chosen.scheduler)
            if before is None:
                record |= {
                    "versions": versions(),
                    "model": chosen.about,
                    "parameters": facts,
                    "slide": {
                        "path": str(path),
                        "level": slide.level,
                        "axes": slide.image.axes,
                        "shape": slide.image.shape,
                        "channel": work.channel,
                        "pixel_size": slide.pixel_size,
                        "pixel_size_from": slide.pixel_size_from,
                        "scale": slide.scale,
                    },
                    "tiles": len(tiles),
                    "seconds": round(time.monotonic() - started, 1),
                    "key": key,
                }
                with fresh_file(folder / RUN) as partial:
                    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
                shutil.rmtree(work.state)
    except InputError:
        if not existed and not any((folder / STATE).glob("*/part-*")):
            shutil.rmtree(folder, ignore_errors=True)  # nothing to go on from
        raise
    running.warn_of_engines(record["engines"])
    size = f"{slide.pixel_size:.4g} um a pixel" if slide.pixel_size else "pixel size unknown"
    size = f"{slide.shape[0]:,} x {slide.shape[1]:,} (level {slide.level}, {size})"
    print(f"1 slide {size}, {record['nuclei']:,} nuclei in {folder}{' (was done before)' if before else ''}")
    return 0


def choose_level(
    levels: Sequence[ImageFile], diameters: Diameters | None, pixel_size: float | None, scale: float | None
) -> Slide:
    """Return the level whose nuclei have to be scaled least to be as large as those that the model was trained on.

    Parameters
    ----------
    levels : of `open_levels`, the finest first; of several that fit as well it is taken, too
    diameters : of the training nuclei; None if unknown
    pixel_size : micrometres at the finest level, if they are not to be taken from the file
    scale : relative to the level that is chosen; None: by the pixel size
    """
    sizes: list[float | None] = [level.pixel_size for level in levels]
    if pixel_size:
        ratios = [levels[0].sizes["X"] / level.sizes["X"] for level in levels]
        if all(sizes):
            ratios = [size / sizes[0] for size in sizes]
        sizes = [pixel_size * ratio for ratio in ratios]
    factors = [scale_for(size, diameters) for size in sizes]
    number = min(range(len(levels)), key=lambda n: abs(math.log(factors[n]))) if all(sizes) else 0
    if len(levels) == 1:
        why = "the only one"
    elif not all(sizes):
        why = "the finest, as the pixel size is not known"
    else:
        why = f"its pixels of {sizes[number]:.4g} um suit the model best"
    image, factor = levels[number], scale or factors[number]
    scaled = "" if factor == 1 else f"; scaled by {factor:g} for the network"
    line = f"level {number} of {len(levels)}, {image.sizes['Y']:,} x {image.sizes['X']:,} pixels: {why}{scaled}"
    source = "--pixel-size" if pixel_size else image.pixel_size_from
    return Slide(number, image, sizes[number], source, factor, line)


def _check_folder(path: Path, folder: Path) -> None:
    """Raise InputError if the result would be written over the slide, into it, or over something of somebody else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; the last argument is the OME-Zarr folder for the result")
    slide, out = path.resolve(), folder.resolve()
    if out.is_relative_to(slide) or slide.is_relative_to(out):
        raise InputError(f"{folder}: is the slide, or one lies in the other; choose another folder for the result")
    found = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if found and (STATE not in found or not found <= OURS):
        raise InputError(f"{folder}: exists, and is not a result of this command; choose another name")


def _check_level(image: ImageFile) -> None:
    """Raise InputError unless a level is a single plane that can be read."""
    stacks = [f"{image.sizes[axis]} planes along {axis}" for axis in "TZ" if image.sizes.get(axis, 1) > 1]
    if stacks:
        raise InputError(f"{image.path}: has {' and '.join(stacks)}; a slide has one. Write to a folder, not to .zarr")
    # The checks of a single pixel: of the whole, its size would be refused.
    planes(window(image, slice(0, min(image.sizes.get("Y", 1), 1)), slice(0, min(image.sizes.get("X", 1), 1))), 0)


def _marks(path: Path) -> list:
    """Return what changes if a slide is written anew: size and time of its files of metadata."""
    found = sorted(file for mark in MARKS for pattern in (mark, f"*/{mark}") for file in path.glob(pattern))
    return [[file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns] for file in found]


def _done(folder: Path, key: str) -> dict | None:
    """Return the record of a run that has made the same result, if it is there."""
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = (folder / "labels").is_dir() and (folder / TABLE).is_file()
    return record if complete and isinstance(record, dict) and record.get("key") == key else None


def _run(
    work: Work, tiles: Sequence[Tile], folder: Path, overwrite: bool, jobs: int, scheduler: str | None
) -> dict[str, Any]:
    """Make the labels and the table, going on from what is there; return what the record says of it."""
    for old in (folder / STATE).iterdir():
        # Of other settings.
        if old.is_dir() and (overwrite or old != folder / STATE / work.state.name):
            shutil.rmtree(old)
    remove_unfinished(folder)
    work.state.mkdir(exist_ok=True)
    try:
        with cluster.open_pool(jobs, scheduler) as pool:
            try:
                return _made(pool, work, tiles, folder)
            except KeyboardInterrupt:
                if sys.stderr.isatty():
                    print(file=sys.stderr)  # under the bar
                done = len(list(work.state.glob("part-*")))
                running.interrupted(pool, folder, f"{done:,} of {len(tiles):,} tiles")
    except InputError:
        if not any(work.state.glob("part-*")):
            shutil.rmtree(work.state)  # nothing to go on from
        raise


def _made(pool: cluster.Pool, work: Work, tiles: Sequence[Tile], folder: Path) -> dict[str, Any]:
    work = replace(work, intensities=_intensities(pool, work, tiles))
    engines, shares = _numbered(pool, work, tiles)
    _write_labels(pool, work, tiles, folder)
    nuclei = shares[-1].last
    # If there are no nuclei at all, a tile without any gives the table its columns.
    shares = [share for share in shares if share.last >= share.first] or shares[:1]
    (folder / RUN).unlink(missing_ok=True)
    order = cluster.in_order(_each(pool, slide_tasks.measure_share, shares, work, "measuring"))
    parquet.write_parts((slide_tasks.read_table(work, shares[number]) for number, _ in order), folder / TABLE)
    _publish(work, folder)
    return {"nuclei": nuclei, "engines": engines}


def _each(pool: cluster.Pool, function: Callable, tasks: Sequence, work: Work, name: str) -> Iterator[tuple[int, Any]]:
    """Do tasks under a progress bar; yield (number, (number, result)), as `in_order` takes it."""
    with tqdm(total=len(tasks), unit="tile", desc=name, disable=None, smoothing=0.1) as bar:
        for number, result in pool.run(function, tasks, work):
            if isinstance(result, cluster.Lost):
                raise InputError(f"{work.slide}: a tile {result.reason}; the others are kept for another start")
            bar.update()
            yield number, (number, result)


def _intensities(pool: cluster.Pool, work: Work, tiles: Sequence[Tile]) -> Intensities:
    """Return how the slide is normalized."""
    path = work.state / "intensities.json"
    if not path.exists():
        for _ in _each(pool, slide_tasks.sample, tiles, work, "reading"):
            pass
        ((_, found),) = pool.run(slide_tasks.intensities, [tiles], work)
        if isinstance(found, cluster.Lost):
            raise InputError(f"{work.slide}: the sample of its pixels {found.reason}")
        with fresh_file(path) as partial:
            partial.write_text(json.dumps(asdict(found)))
        for sample in work.state.glob("sample-*"):
            sample.unlink()
    return Intensities(**json.loads(path.read_text()))


def _numbered(pool: cluster.Pool, work: Work, tiles: Sequence[Tile]) -> tuple[list[str], list[Share]]:
    """Predict all tiles; return what computed them, and the nuclei that each brought in."""
    numbering, engines = Numbering(work, tiles), set()
    for number, engine in cluster.in_order(_each(pool, slide_tasks.predict, tiles, work, "predicting")):
        numbering.add(tiles[number])
        engines.add(engine)
    return sorted(engines - {None}), numbering.shares()


class Numbering:
    """Gives nuclei their numbers, tile by tile in order, as `Predictor.labels` does.

    Needs the pixels of one tile and of those beside it, and keeps a few numbers for each tile.
    """

    def __init__(self, work: Work, tiles: Sequence[Tile]):
        self._work, self._blocks = work, tiles
        self._last: list[int] = []  # the highest number after each tile
        self._windows: list[Window] = []  # of each tile, grown until they hold all of its nuclei

    def add(self, tile: Tile) -> None:
        """Number the nuclei of the next tile."""
        part, count = slide_tasks.read_part(self._work, tile), self._last[-1] if self._last else 0
        self._windows.append(tile.window)
        after = count
        if part.size:
            labels = slide_tasks.painted(self._work, tile.window, self._blocks[: tile.number])
            numbers, after = match(labels, part, relative(tile.core, tile.window), count)
            slide_tasks.write_numbers(self._work, tile, numbers)
            self._grow(tile, part, numbers, count)
        self._last.append(after)

    def _grow(self, tile: Tile, part, numbers, count: int) -> None:
        """Let windows of earlier tiles hold what this tile adds to their nuclei."""
        for number, box in zip(numbers[1:].tolist(), ndimage.find_objects(part), strict=True):
            if box is not None and 0 < number <= count:
                owner = bisect_left(self._last, number)
                self._windows[owner] = tuple(
                    slice(min(old.start, new.start + at.start), max(old.stop, new.stop + at.start))
                    for old, new, at in zip(self._windows[owner], box, tile.window, strict=True)
                )

    def shares(self) -> list[Share]:
        """Return the nuclei that each tile brought in."""
        firsts = [1, *(last + 1 for last in self._last)]
        return [Share(n, firsts[n], last, self._windows[n]) for n, last in enumerate(self._last)]


def _write_labels(pool: cluster.Pool, work: Work, tiles: Sequence[Tile], folder: Path) -> None:
    """Write all levels of the label image."""
    labels = work.state / "labels"
    # Relative to where the label image will lie.
    source = Path(os.path.relpath(work.slide, folder.absolute() / "labels" / zarr_labels.NAME)).as_posix()
    zarr_labels.create(labels, work.shape, work.pixel_size, source)
    tasks = [(part, slide_tasks.overlapping(part, tiles)) for part in _windows(work.shape)]
    for _ in _each(pool, slide_tasks.write, tasks, work, "writing"):
        pass
    shapes = [array.shape for array in zarr_labels.open_arrays(labels)]
    step = slide_tasks.AT_ONCE - 1
    for level in range(step, len(shapes) - 1, step):
        for _ in _each(
            pool, slide_tasks.shrink, [(level, part) for part in _windows(shapes[level])], work, "shrinking"
        ):
            pass


def _windows(shape: tuple[int, int]) -> Iterable[Window]:
    """Cut a level into the windows that tasks write."""
    for top in range(0, shape[0], SIDE):
        for left in range(0, shape[1], SIDE):
            yield slice(top, min(top + SIDE, shape[0])), slice(left, min(left + SIDE, shape[1]))


def _publish(work: Work, folder: Path) -> None:
    """Put the finished labels where they belong."""
    with fresh_file(folder / ".zgroup") as partial:
        partial.write_text(json.dumps({"zarr_format": 2}))
    shutil.rmtree(folder / "labels", ignore_errors=True)
    (work.state / "labels").rename(folder / "labels")
