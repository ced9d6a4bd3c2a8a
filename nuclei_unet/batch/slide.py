"""Find the nuclei of a slide: an OME-Zarr too large for memory in, an OME-Zarr with labels and a table out.

A slide is predicted in the same tiles as any image, and the result is the same to the pixel. Memory is bounded by
what a worker needs for a tile. Four passes, each in any number of processes: sample the pixels, which decides how
they are normalized and scaled; predict the tiles, whose nuclei are numbered on the way, in order; write the labels;
measure.
"""

import json
import math
import os
import shutil
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from nuclei_unet.batch import run, slide_tasks
from nuclei_unet.batch.pool import Lost, Pool, in_order, open_pool
from nuclei_unet.batch.run import ChosenModel, RunSettings
from nuclei_unet.batch.slide_tasks import SIDE, Share, SlideRun, Window
from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file, remove_unfinished
from nuclei_unet.formats import parquet, zarr_labels
from nuclei_unet.formats.imagefile import ImageFile
from nuclei_unet.formats.planes import choose_channel, planes
from nuclei_unet.formats.registry import FORMATS
from nuclei_unet.formats.zarr_images import MARKS, open_levels, window
from nuclei_unet.images import Intensities
from nuclei_unet.prediction.diameter import Diameter, from_pixel_size, windows
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.prediction.tiles import Tile, match, relative
from nuclei_unet.prediction.tiles import tiles as cores
from nuclei_unet.results.record import RUN, STATE

TABLE = FORMATS["parquet"].ending
# What OUT.zarr holds at the end. Anything else is somebody else's.
OURS = {STATE, ".zgroup", "labels", TABLE, RUN}


@dataclass(frozen=True)
class Level:
    """The level of a slide that is segmented, and why."""

    number: int
    image: ImageFile
    pixel_size: float | None  # micrometres
    pixel_size_from: str
    diameter: float | None  # px, if the user knows
    line: str  # for the user

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.sizes["Y"], self.image.sizes["X"]


def segment(path: Path, settings: RunSettings, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Find the nuclei of a slide; return what run.json says, and whether it was done `before`.

    `tell` is called with a line that says which level of the slide is taken. Raises InputError if it cannot be done.
    """
    started = time.monotonic()
    parquet.check_installed(f"{settings.folder}: a slide's table")
    _check_folder(path, settings.folder)
    levels = open_levels(path)
    for image in levels:
        _check_level(image)
    model = run.choose_model(settings)
    if model.metadata.normalize.image_size is not None:
        raise InputError(f"{model.name}: sees images at one size only, so it cannot be used for slides")
    level = choose_level(levels, model.metadata.diameter, settings.pixel_size, settings.diameter)
    tell(level.line)
    slide = _prepared(path, settings, model, level)
    existed = settings.folder.exists()
    try:
        with run.locked(settings.folder):
            done = None if settings.overwrite else _done(settings.folder, slide.settings.key)
            if done:
                return {**done, "before": True}
            facts = _run(slide, model, level, settings) | run.facts(model, settings)
            facts["slide"] = {
                "path": str(path),
                "level": level.number,
                "axes": level.image.axes,
                "shape": level.image.shape,
                "height": level.shape[0],
                "width": level.shape[1],
                "channel": slide.channel,
                "pixel_size": level.pixel_size,
                "pixel_size_from": level.pixel_size_from,
                "diameter": facts.pop("diameter"),
                "diameter_from": facts.pop("diameter_from"),
            }
            facts |= {"seconds": round(time.monotonic() - started, 1), "key": slide.settings.key}
            with fresh_file(settings.folder / RUN) as partial:
                partial.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(slide.state)
            return {**facts, "before": False}
    except InputError:
        if not existed and not any((settings.folder / STATE).glob("*/part-*")):
            shutil.rmtree(settings.folder, ignore_errors=True)  # nothing to go on from
        raise


def _prepared(path: Path, settings: RunSettings, model: ChosenModel, level: Level) -> SlideRun:
    """Return what all tasks share."""
    image = level.image
    about = [level.number, image.axes, image.shape, str(image.dtype), level.pixel_size, level.diameter]
    key = run.key(model.digest, settings.deciding, str(path.absolute()), about, _marks(path))
    return SlideRun(
        settings=replace(settings, model=model.path, folder=settings.folder.absolute(), key=key),
        slide=path.absolute(),
        level=level.number,
        channel=choose_channel(image, settings.channel),
        pixel_size=level.pixel_size,
        shape=level.shape,
        state=settings.folder.absolute() / STATE / key[:16],
    )


def choose_level(
    levels: Sequence[ImageFile], usual: float | None, pixel_size: float | None, diameter: float | None
) -> Level:
    """Return the level whose nuclei are nearest in size to those that the model knows, which have `usual` px.

    The finest of `levels` comes first; of several that fit as well it is taken. `pixel_size` is in micrometres, and
    `diameter` of the typical nucleus in px, both at the finest level; None: from the file, and unknown.
    """
    sizes: list[float | None] = [level.pixel_size for level in levels]
    ratios = [levels[0].sizes["X"] / level.sizes["X"] for level in levels]
    if pixel_size:
        if all(sizes):
            ratios = [size / sizes[0] for size in sizes]
        sizes = [pixel_size * ratio for ratio in ratios]
    given = [diameter / ratio if diameter else None for ratio in ratios]
    expected = given if diameter else [from_pixel_size(size) for size in sizes]
    known = bool(usual) and all(expected)
    number = min(range(len(levels)), key=lambda n: abs(math.log(expected[n] / usual))) if known else 0
    if len(levels) == 1:
        why = "the only one"
    elif not known:
        why = "the finest, as the size of nuclei is not known yet"
    else:
        why = f"its nuclei of some {expected[number]:.0f} px suit the model best"
    image = levels[number]
    line = f"level {number} of {len(levels)}, {image.sizes['Y']:,} x {image.sizes['X']:,} pixels: {why}"
    source = "the user" if pixel_size else image.pixel_size_from
    return Level(number, image, sizes[number], source, given[number], line)


def _check_folder(path: Path, folder: Path) -> None:
    """Raise InputError if the result would be written over the slide, into it, or over something of somebody else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; the last argument is the OME-Zarr folder for the result")
    slide, out = path.resolve(), folder.resolve()
    if out.is_relative_to(slide) or slide.is_relative_to(out):
        raise InputError(f"{folder}: is the slide, or one lies in the other; choose another folder for the result")
    names = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if names and (STATE not in names or not names <= OURS):
        raise InputError(f"{folder}: exists, and is not a result of this command; choose another name")


def _check_level(image: ImageFile) -> None:
    """Raise InputError unless a level is a single plane that can be read."""
    stacks = [f"{image.sizes[axis]} planes along {axis}" for axis in "TZ" if image.sizes.get(axis, 1) > 1]
    if stacks:
        raise InputError(f"{image.path}: has {' and '.join(stacks)}, a slide has one")
    # The checks of a single pixel: of the whole, its size would be refused.
    planes(window(image, slice(0, min(image.sizes.get("Y", 1), 1)), slice(0, min(image.sizes.get("X", 1), 1))), 0)


def _marks(path: Path) -> list:
    """Return what changes if a slide is written anew: size and time of its files of metadata."""
    files = sorted(file for mark in MARKS for pattern in (mark, f"*/{mark}") for file in path.glob(pattern))
    return [[file.relative_to(path).as_posix(), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _done(folder: Path, key: str) -> dict | None:
    """Return what run.json says of a run that has made the same result, if it is there."""
    try:
        record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = (folder / "labels").is_dir() and (folder / TABLE).is_file()
    return record if complete and record.get("key") == key else None


def _run(slide: SlideRun, model: ChosenModel, level: Level, settings: RunSettings) -> dict[str, Any]:
    """Make the labels and the table, going on from what is there; return what run.json says of it."""
    for old in (settings.folder / STATE).iterdir():
        # Of other settings.
        if old.is_dir() and (settings.overwrite or old.name != slide.state.name):
            shutil.rmtree(old)
    remove_unfinished(settings.folder)
    slide.state.mkdir(exist_ok=True)
    predict = run.predict_settings(model.metadata, settings.fast)
    predictor = Predictor(None, model.metadata.but(predict=predict))  # cutting needs no network
    tiles: Sequence[Tile] = ()
    try:
        with open_pool(settings.jobs, settings.scheduler) as pool:
            slide = replace(slide, intensities=_intensities(pool, slide, predictor.cut(slide.shape, 1.0)))
            diameter = Diameter(level.diameter) if level.diameter else _diameter(pool, slide)
            slide = replace(slide, diameter=diameter.px)
            tiles = predictor.cut(slide.shape, predictor.scale(diameter.px))
            made = _made(pool, slide, tiles, settings.folder)
            return made | {"tiles": len(tiles), "diameter": diameter.px, "diameter_from": diameter.source}
    except KeyboardInterrupt:
        done = len(list(slide.state.glob("part-*")))
        remove_unfinished(settings.folder)  # the folder is locked: nobody else writes there
        raise KeyboardInterrupt(f"{done:,} of {len(tiles) or '?'} tiles") from None
    except InputError:
        if not any(slide.state.glob("part-*")):
            shutil.rmtree(slide.state)  # nothing to go on from
        raise


def _made(pool: Pool, slide: SlideRun, tiles: Sequence[Tile], folder: Path) -> dict[str, Any]:
    numbering, computed_by = Numbering(slide, tiles), set()
    for tile, computer in zip(tiles, _each(pool, slide_tasks.predict, tiles, slide, "predicting"), strict=True):
        numbering.add(tile)
        computed_by.add(computer)
    _write_labels(pool, slide, tiles, folder)
    shares = numbering.shares()
    nuclei = shares[-1].last
    # If there are no nuclei at all, a tile without any gives the table its columns.
    shares = [share for share in shares if share.last >= share.first] or shares[:1]
    (folder / RUN).unlink(missing_ok=True)
    measured = zip(shares, _each(pool, slide_tasks.measure_share, shares, slide, "measuring"), strict=True)
    parquet.write_parts((slide_tasks.read_table(slide, share) for share, _ in measured), folder / TABLE)
    with fresh_file(folder / ".zgroup") as partial:
        partial.write_text(json.dumps({"zarr_format": 2}))
    shutil.rmtree(folder / "labels", ignore_errors=True)
    (slide.state / "labels").rename(folder / "labels")
    return {"nuclei": nuclei, "computed_by": sorted(computed_by - {None})}


def _each(pool: Pool, function: Callable, tasks: Sequence, slide: SlideRun, name: str) -> Iterator[Any]:
    """Do tasks under a progress bar; yield their results in order."""

    def results() -> Iterator[tuple[int, Any]]:
        for number, result in pool.run(function, tasks, slide):
            if isinstance(result, Lost):
                raise InputError(f"{slide.slide}: a tile {result.reason}; the others are kept for another start")
            bar.update()
            yield number, result

    with tqdm(total=len(tasks), unit="tile", desc=name, disable=None, smoothing=0.1) as bar:
        yield from in_order(results())


def _intensities(pool: Pool, slide: SlideRun, tiles: Sequence[Tile]) -> Intensities:
    """Return how the slide is normalized."""

    def measure() -> Intensities:
        list(_each(pool, slide_tasks.sample, tiles, slide, "reading"))
        intensities = _once(pool, slide_tasks.intensities, tiles, slide)
        for sample in slide.state.glob("sample-*"):
            sample.unlink()
        return intensities

    return _kept(slide.state / "intensities.json", Intensities, measure)


def _diameter(pool: Pool, slide: SlideRun) -> Diameter:
    """Return how large the typical nucleus is."""
    parts = windows(slide.shape)
    return _kept(slide.state / "diameter.json", Diameter, lambda: _once(pool, slide_tasks.diameter, parts, slide))


def _kept(path: Path, record: type, make: Callable[[], Any]) -> Any:
    """Return a record of plain numbers from a file; if there is none, make it."""
    if not path.exists():
        made = make()
        with fresh_file(path) as partial:
            partial.write_text(json.dumps(asdict(made)))
    return record(**json.loads(path.read_text()))


def _once(pool: Pool, function: Callable, task: Any, slide: SlideRun) -> Any:
    ((_, result),) = pool.run(function, [task], slide)
    if isinstance(result, Lost):
        raise InputError(f"{slide.slide}: the sample of its pixels {result.reason}")
    return result


class Numbering:
    """Gives nuclei their numbers, tile by tile in order, as `Predictor.labels` does.

    Needs the pixels of one tile and of those beside it, and keeps a few numbers for each tile.
    """

    def __init__(self, slide: SlideRun, tiles: Sequence[Tile]):
        self._slide, self._tiles = slide, tiles
        self._last: list[int] = []  # the highest number after each tile
        self._windows: list[Window] = []  # of each tile, grown until they hold all of its nuclei

    def add(self, tile: Tile) -> None:
        """Number the nuclei of the next tile."""
        part, count = slide_tasks.read_part(self._slide, tile), self._last[-1] if self._last else 0
        self._windows.append(tile.window)
        after = count
        if part.size:
            labels = slide_tasks.painted(self._slide, tile.window, self._tiles[: tile.number])
            numbers, after = match(labels, part, relative(tile.core, tile.window), count)
            with fresh_file(self._slide.file("numbers", tile.number, ".npy")) as partial:
                np.save(partial, numbers)
            self._grow(tile, part, numbers, count)
        self._last.append(after)

    def _grow(self, tile: Tile, part, numbers, count: int) -> None:
        """Let windows of earlier tiles hold what this tile adds to their nuclei."""
        for number, box in zip(numbers[1:].tolist(), ndimage.find_objects(part), strict=True):
            if box is not None and 0 < number <= count:
                owner = bisect_left(self._last, number)
                rows, columns = (
                    slice(min(old.start, new.start + at.start), max(old.stop, new.stop + at.start))
                    for old, new, at in zip(self._windows[owner], box, tile.window, strict=True)
                )
                self._windows[owner] = rows, columns

    def shares(self) -> list[Share]:
        """Return the nuclei that each tile brought in."""
        firsts = [1, *(last + 1 for last in self._last)]
        return [Share(n, firsts[n], last, self._windows[n]) for n, last in enumerate(self._last)]


def _write_labels(pool: Pool, slide: SlideRun, tiles: Sequence[Tile], folder: Path) -> None:
    """Write all levels of the label image."""
    labels = slide.state / "labels"
    # Relative to where the label image will lie.
    source = Path(os.path.relpath(slide.slide, folder.absolute() / "labels" / zarr_labels.NAME)).as_posix()
    zarr_labels.create(labels, slide.shape, slide.pixel_size, source)
    tasks = [(0, part, slide_tasks.overlapping(part, tiles)) for part, _ in cores(slide.shape, SIDE, 0)]
    list(_each(pool, slide_tasks.write, tasks, slide, "writing"))
    shapes = [array.shape for array in zarr_labels.open_arrays(labels)]
    step = slide_tasks.AT_ONCE - 1
    for level in range(step, len(shapes) - 1, step):
        tasks = [(level, part, []) for part, _ in cores(shapes[level], SIDE, 0)]
        list(_each(pool, slide_tasks.write, tasks, slide, "shrinking"))
