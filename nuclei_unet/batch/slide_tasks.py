"""What is done to one tile of a slide, on whatever machine.

Each function takes a task and the `SlideRun` that all of them share. What comes of it is a file in the folder
`SlideRun.state`, written whole or not at all; if the file is there, nothing is done.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuclei_unet.batch import run
from nuclei_unet.batch.pool import check_seen
from nuclei_unet.batch.run import RunSettings
from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats import zarr_labels
from nuclei_unet.formats.imagefile import ImageFile, without_suffix
from nuclei_unet.formats.planes import planes
from nuclei_unet.formats.zarr_images import one_channel, open_levels, window
from nuclei_unet.images import Intensities, apply, check_finite, measured, sampling_step, to_rgb
from nuclei_unet.measurements import measure
from nuclei_unet.prediction import models
from nuclei_unet.prediction.diameter import Diameter, from_pixel_size
from nuclei_unet.prediction.segmenter import Segmenter
from nuclei_unet.prediction.tiles import Tile, paint, relative

Window = tuple[slice, slice]
# Levels of the pyramid that one task writes: windows of four chunks a side become one chunk of the third level. So no
# two tasks write to the same chunk.
AT_ONCE = 3
SIDE = zarr_labels.CHUNK * 2 ** (AT_ONCE - 1)


@dataclass(frozen=True)
class SlideRun:
    """What all tasks of a slide share. Sent to each worker, so paths are absolute; `settings.model` is a local file."""

    settings: RunSettings
    slide: Path
    level: int
    channel: int | None
    pixel_size: float | None  # micrometres, at this level
    shape: tuple[int, int]  # of the level, and of the label image
    state: Path
    intensities: Intensities | None = None  # known after `intensities`
    diameter: float | None = None  # px, known after `diameter`

    @property
    def name(self) -> str:
        """What the table's column `image` says."""
        return without_suffix(Path(self.slide.name)).name

    def file(self, what: str, number: int, ending: str) -> Path:
        """Return where something about a tile is kept."""
        check_seen(self.state)
        return self.state / f"{what}-{number:06}{ending}"


@dataclass(frozen=True)
class Share:
    """The nuclei that one tile brought in: those numbered from `first` to `last`. All lie in `window`."""

    number: int
    first: int
    last: int
    window: Window


def sample(tile: Tile, slide: SlideRun) -> None:
    """Keep those pixels of a tile that decide how the slide is normalized."""
    path = slide.file("sample", tile.number, ".npy")
    if path.exists():
        return
    rgb = _pixels(slide, tile.core)
    try:
        check_finite(rgb)
    except InputError as error:
        raise InputError(f"{slide.slide}: {error}") from None
    step = sampling_step(slide.shape)
    rows, columns = (slice(-s.start % step, None, step) for s in tile.core)
    with fresh_file(path) as partial:
        np.save(partial, rgb[rows, columns])


def intensities(tiles: Sequence[Tile], slide: SlideRun) -> Intensities:
    """Measure the samples of all tiles, put together as if they were cut from the whole image."""
    step = sampling_step(slide.shape)
    whole = None
    for tile in tiles:
        part = np.load(slide.file("sample", tile.number, ".npy"))
        if whole is None:
            whole = np.empty((*(-(-side // step) for side in slide.shape), 3), part.dtype)
        top, left = (-(-s.start // step) for s in tile.core)
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return measured(whole, models.describe(slide.settings.model)[0].normalize)


def diameter(parts: Sequence[Window], slide: SlideRun) -> Diameter:
    """Estimate the diameter of the typical nucleus, px, from windows of the slide."""
    segmenter, _ = run.segmenter(slide.settings)
    seen = [apply(_pixels(slide, part), slide.intensities) for part in parts]
    return segmenter.predictor.diameter(seen, from_pixel_size(slide.pixel_size))


def predict(tile: Tile, slide: SlideRun) -> str | None:
    """Find the nuclei of a tile. Returns what computed them, None if that was done before.

    Kept are the nuclei that reach into the tile's core: uint16 (H, W), or (0, 0) if there are none.
    """
    path = slide.file("part", tile.number, ".npz")
    if path.exists():
        return None
    segmenter, computed_by = run.segmenter(slide.settings)
    pixels, scale = _pixels(slide, tile.window), segmenter.predictor.scale(slide.diameter)
    if (pixels == pixels[0, 0]).all():
        value = apply(pixels[:1, :1], slide.intensities)
        part = _even(segmenter, value.tobytes(), (*pixels.shape[:2], *value.shape[2:]), scale)
    else:
        part = segmenter.predictor.part(apply(pixels, slide.intensities), scale)
    numbers = np.zeros(int(part.max()) + 1, part.dtype)
    inside = np.unique(part[relative(tile.core, tile.window)])
    numbers[inside] = inside
    with fresh_file(path) as partial:
        np.savez_compressed(partial, part=numbers[part] if inside.any() else np.zeros((0, 0), part.dtype))
    return computed_by


@functools.lru_cache(16)
def _even(segmenter: Segmenter, value: bytes, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Return what is found in a tile of one value. Much of a slide is empty, in tiles of nine sizes at most."""
    pixel = np.frombuffer(value, np.uint8).reshape(shape[2:])
    return segmenter.predictor.part(np.ascontiguousarray(np.broadcast_to(pixel, shape)), scale)


def read_part(slide: SlideRun, tile: Tile) -> np.ndarray:
    """Return what `predict` found."""
    with np.load(slide.file("part", tile.number, ".npz")) as arrays:
        return arrays["part"]


def painted(slide: SlideRun, part: Window, tiles: Sequence[Tile]) -> np.ndarray:
    """Return a window of the label image, uint32 (H, W), from the tiles given, in order; their numbers are known."""
    labels = np.zeros([s.stop - s.start for s in part], np.uint32)
    for tile in overlapping(part, tiles):
        nuclei = read_part(slide, tile)
        if not nuclei.size:
            continue
        both = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(part, tile.window, strict=True))
        numbers = np.load(slide.file("numbers", tile.number, ".npy"))
        paint(labels[relative(both, part)], nuclei[relative(both, tile.window)], numbers)
    return labels


def overlapping(part: Window, tiles: Sequence[Tile]) -> list[Tile]:
    """Return the tiles that share pixels with a window."""
    return [tile for tile in tiles
            if all(a.start < b.stop and b.start < a.stop for a, b in zip(part, tile.window, strict=True))]  # fmt: skip


def write(task: tuple[int, Window, Sequence[Tile]], slide: SlideRun) -> None:
    """Write a window of the label image to a level of the pyramid and those that follow from it.

    The first level is put together from `tiles`, those that reach into the window; a later one is read.
    """
    level, part, tiles = task
    arrays = zarr_labels.open_arrays(slide.state / "labels")[level : level + AT_ONCE]
    labels = arrays[0][part] if level else painted(slide, part, tiles)
    if labels.any():
        for n in range(level > 0, len(arrays)):
            there = tuple(slice(s.start >> n, -(-s.stop >> n)) for s in part)
            arrays[n][there] = labels[:: 2**n, :: 2**n]


def measure_share(share: Share, slide: SlideRun) -> None:
    """Measure the nuclei that one tile brought in."""
    path = slide.file("table", share.number, ".npz")
    if path.exists():
        return
    labels = zarr_labels.open_arrays(slide.state / "labels")[0][share.window]
    mine = (labels >= share.first) & (labels <= share.last)
    labels = np.where(mine, labels - np.uint32(share.first - 1), 0).astype(np.int32)
    (plane,) = planes(window(_level(slide.slide, slide.level), *share.window), slide.channel)
    origin = tuple(s.start for s in share.window)
    table = measure(labels, plane.read()[1], pixel_size=slide.pixel_size, channels=plane.channels, origin=origin)
    table["label"] = table["label"] + share.first - 1
    with fresh_file(path) as partial:
        np.savez(partial, **table)


def read_table(slide: SlideRun, share: Share) -> dict[str, np.ndarray]:
    """Return what `measure_share` measured, as the table of `nuclei-unet predict` has it."""
    with np.load(slide.file("table", share.number, ".npz")) as columns:
        return {"image": np.full(len(columns["label"]), slide.name, object), **columns}


def _pixels(slide: SlideRun, there: Window) -> np.ndarray:
    """Read a window of the slide, not yet normalized: (H, W, 3)."""
    image, channel = window(_level(slide.slide, slide.level), *there), slide.channel
    if channel is not None and "C" in image.axes:
        image, channel = one_channel(image, channel), None
    (plane,) = planes(image, channel)
    return to_rgb(plane.read()[0])


@functools.lru_cache(4)
def _level(path: Path, number: int) -> ImageFile:
    return open_levels(path)[number]
