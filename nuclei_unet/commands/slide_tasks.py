"""What is done to one tile of a slide, on whatever machine: the tasks of `nuclei-unet predict SLIDE.zarr OUT.zarr`.

Each function takes a task and the `Work` that all of them share. What it finds is a file in the folder `Work.state`,
written whole or not at all; if the file is there, nothing is done.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuclei_unet.commands import running
from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats import zarr_labels
from nuclei_unet.formats.imagefile import ImageFile
from nuclei_unet.formats.planes import planes
from nuclei_unet.formats.zarr_images import one_channel, open_levels, window
from nuclei_unet.images import Intensities, apply, check_finite, measured, resize, sampling_step, to_rgb
from nuclei_unet.measurements import measure
from nuclei_unet.prediction.tiles import Tile, paint, relative

Window = tuple[slice, slice]
# Levels of the pyramid that one task writes: windows of four chunks a side become one chunk of the third level. So no
# two tasks write to the same chunk.
AT_ONCE = 3
SIDE = zarr_labels.CHUNK * 2 ** (AT_ONCE - 1)


@dataclass(frozen=True)
class Work:
    """What all tasks of a slide share. Sent to each worker, so paths are absolute."""

    slide: Path
    level: int
    channel: int | None
    pixel_size: float | None  # micrometres, at this level
    shape: tuple[int, int]  # of the level, and of the label image
    seen: tuple[int, int]  # of the image as the network sees it
    model: Path
    engine: str
    threads: int | None  # None: as many as a worker of the cluster has
    views: str | None
    state: Path
    name: str  # in the table's column `image`
    intensities: Intensities | None = None  # known after `intensities`


@dataclass(frozen=True)
class Share:
    """The nuclei that one tile brought in: those numbered from `first` to `last`. All lie in `window`."""

    number: int
    first: int
    last: int
    window: Window


def sample(tile: Tile, work: Work) -> None:
    """Keep those pixels of a tile that decide how the slide is normalized."""
    path = _file(work, "sample", tile.number, ".npy")
    if path.exists():
        return
    rgb = _pixels(work, tile.core, tile.seen_core)
    try:
        check_finite(rgb)
    except InputError as error:
        raise InputError(f"{work.slide}: {error}") from None
    step = sampling_step(work.seen)
    rows, columns = (slice(-s.start % step, None, step) for s in tile.seen_core)
    with fresh_file(path) as partial:
        np.save(partial, rgb[rows, columns])


def intensities(tiles: Sequence[Tile], work: Work) -> Intensities:
    """Measure the samples of all tiles, put together as if they were cut from the whole image."""
    from nuclei_unet.prediction import models

    step = sampling_step(work.seen)
    whole = None
    for tile in tiles:
        part = np.load(_file(work, "sample", tile.number, ".npy"))
        if whole is None:
            whole = np.empty((*(-(-side // step) for side in work.seen), 3), part.dtype)
        top, left = (-(-s.start // step) for s in tile.seen_core)
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return measured(whole, models.describe(work.model)[0].metadata.normalize)


def predict(tile: Tile, work: Work) -> str | None:
    """Find the nuclei of a tile. Returns what computed them, None if that was done before.

    Kept are the nuclei that reach into the tile's core: uint16 (H, W), or (0, 0) if there are none.
    """
    path = _file(work, "part", tile.number, ".npz")
    if path.exists():
        return None
    segmenter, engine = running.segmenter(work.model, work.engine, work.threads, work.views)
    pixels = _pixels(work, tile.window, tile.seen)
    if (pixels == pixels[0, 0]).all():
        value = apply(pixels[:1, :1], work.intensities)
        part = _even(segmenter, value.tobytes(), (*pixels.shape[:2], *value.shape[2:]), tile.size)
    else:
        part = segmenter.predictor.part(apply(pixels, work.intensities), tile.size)
    numbers = np.zeros(int(part.max()) + 1, part.dtype)
    inside = np.unique(part[relative(tile.core, tile.window)])
    numbers[inside] = inside
    with fresh_file(path) as partial:
        np.savez_compressed(partial, part=numbers[part] if inside.any() else np.zeros((0, 0), part.dtype))
    return engine


@functools.lru_cache(16)
def _even(segmenter, value: bytes, shape: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """Return what is found in a tile of one value. Much of a slide is empty, in tiles of nine sizes at most."""
    pixel = np.frombuffer(value, np.uint8).reshape(shape[2:])
    return segmenter.predictor.part(np.ascontiguousarray(np.broadcast_to(pixel, shape)), size)


def read_part(work: Work, tile: Tile) -> np.ndarray:
    """Return what `predict` found."""
    with np.load(_file(work, "part", tile.number, ".npz")) as found:
        return found["part"]


def write_numbers(work: Work, tile: Tile, numbers: np.ndarray) -> None:
    """Keep the numbers that the nuclei of a tile have in the whole slide; see `tiles.match`."""
    with fresh_file(_file(work, "numbers", tile.number, ".npy")) as partial:
        np.save(partial, numbers)


def painted(work: Work, part: Window, tiles: Sequence[Tile]) -> np.ndarray:
    """Return a window of the label image, uint32 (H, W), from the tiles given, in order; their numbers are known."""
    labels = np.zeros([s.stop - s.start for s in part], np.uint32)
    for tile in overlapping(part, tiles):
        found = read_part(work, tile)
        if not found.size:
            continue
        both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(part, tile.window, strict=True))
        numbers = np.load(_file(work, "numbers", tile.number, ".npy"))
        paint(labels[relative(both, part)], found[relative(both, tile.window)], numbers)
    return labels


def overlapping(part: Window, tiles: Sequence[Tile]) -> list[Tile]:
    """Return the tiles that share pixels with a window."""
    return [
        tile
        for tile in tiles
        if all(a.start < b.stop and b.start < a.stop for a, b in zip(part, tile.window, strict=True))
    ]


def write(task: tuple[Window, Sequence[Tile]], work: Work) -> None:
    """Write a window of the label image, from the tiles that reach into it, to the first levels of the pyramid."""
    part, tiles = task
    labels = painted(work, part, tiles)
    if labels.any():
        _write_levels(work, 0, part, labels)


def shrink(task: tuple[int, Window], work: Work) -> None:
    """Write the levels that follow from a window of a level."""
    level, part = task
    _write_levels(work, level, part, zarr_labels.open_arrays(work.state / "labels")[level][part])


def _write_levels(work: Work, level: int, part: Window, labels: np.ndarray) -> None:
    arrays = zarr_labels.open_arrays(work.state / "labels")[level : level + AT_ONCE]
    for n in range(level > 0, len(arrays)):  # a level that was read is there
        there = tuple(slice(s.start >> n, -(-s.stop >> n)) for s in part)
        arrays[n][there] = labels[:: 2**n, :: 2**n]


def measure_share(share: Share, work: Work) -> None:
    """Measure the nuclei that one tile brought in."""
    path = _file(work, "table", share.number, ".npz")
    if path.exists():
        return
    labels = zarr_labels.open_arrays(work.state / "labels")[0][share.window]
    mine = (labels >= share.first) & (labels <= share.last)
    labels = np.where(mine, labels - np.uint32(share.first - 1), 0).astype(np.int32)
    (plane,) = planes(window(_level(work.slide, work.level), *share.window), work.channel)
    origin = tuple(s.start for s in share.window)
    table = measure(labels, plane.read()[1], pixel_size=work.pixel_size, channels=plane.channels, origin=origin)
    table["label"] = table["label"] + share.first - 1
    with fresh_file(path) as partial:
        np.savez(partial, **table)


def read_table(work: Work, share: Share) -> dict[str, np.ndarray]:
    """Return what `measure_share` measured, as the table of `nuclei-unet predict` has it."""
    with np.load(_file(work, "table", share.number, ".npz")) as found:
        return {"image": np.full(len(found["label"]), work.name, object), **found}


def _file(work: Work, what: str, number: int, ending: str) -> Path:
    if not work.state.is_dir():
        raise InputError(f"{work.state.parent.parent}: a worker does not see it; all machines need the same folders")
    return work.state / f"{what}-{number:06}{ending}"


def _pixels(work: Work, there: Window, seen: Window) -> np.ndarray:
    """Read a window of the slide as the network sees it, but for the intensities: (H, W, 3)."""
    image, channel = window(_level(work.slide, work.level), *there), work.channel
    if channel is not None and "C" in image.axes:
        image, channel = one_channel(image, channel), None
    (plane,) = planes(image, channel)
    return resize(to_rgb(plane.read()[0]), [s.stop - s.start for s in seen])


@functools.lru_cache(4)
def _level(slide: Path, level: int) -> ImageFile:
    return open_levels(slide)[level]
