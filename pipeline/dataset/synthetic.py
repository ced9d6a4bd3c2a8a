"""A synthetic data set with the looks and the layout of BBBC038, for demonstrations and tests without internet.

Like the real set, the training images are neighbouring crops of larger frames: a frame of one of four kinds is drawn,
then cut into 2x2 crops. The seed determines every pixel.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nuclei_unet.formats.run_lengths import encode_run_lengths
from pipeline.dataset import archives

Rng, Pair, Shape = np.random.Generator, tuple[float, float], tuple[int, int]

CROPS_PER_FRAME = 4
# Pieces of cut nuclei below this area, in pixels, are dropped.
SMALLEST_PIECE = 8


class Stamp(NamedTuple):
    """One blob, cut to the frame that it is in."""

    window: tuple[slice, slice]  # rows and columns of the frame
    coverage: np.ndarray  # float32, 0 outside, 1 inside, between on the outline
    depth: np.ndarray  # float32, 0 at the outline to 1 at the centre
    centre: np.ndarray  # row, column in pixels
    radius: float  # of the circle of the same area, in pixels


def write_archives(folder: Path, train: int, test: int, seed: int) -> None:
    """Draw a data set and write it as the three files of BBBC038: the same arguments give the same bytes.

    `train` and `test` are numbers of images. Every four training images share a frame, each test image has its own.
    """
    train_files, test_files, solution = {}, {}, []
    for name, rgb, labels in training_images(train, seed):
        train_files[archives.image_member(name)] = encode_image(rgb)
        for number, mask in enumerate(masks_of(labels), start=1):
            train_files[f"{name}/masks/{number}.png"] = encode_png(mask.astype(np.uint8) * 255)
    for name, rgb, labels in held_out_images(test, seed):
        test_files[archives.image_member(name)] = encode_image(rgb)
        solution += [(name, encode_run_lengths(mask), *labels.shape, "Public") for mask in masks_of(labels)]
    archives.write(folder / "stage1_train.zip", train_files)
    archives.write(folder / "stage1_test.zip", test_files)
    with (folder / "stage1_solution.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageId", "EncodedPixels", "Height", "Width", "Usage"])
        writer.writerows(sorted(solution))


def frames(train: int, seed: int) -> dict[str, int]:
    """Return ImageId -> index of the source frame of each training image.

    The ids of a frame follow one another: upper left, upper right, lower left, lower right. The last may lack some.
    """
    return {image_id(seed, "train", index): index // CROPS_PER_FRAME for index in range(train)}


def kind_of(frame: int) -> "Kind":
    """Return the kind of the frame with this index."""
    return KINDS[KIND_CYCLE[frame % len(KIND_CYCLE)]]


def image_id(seed: int, split: str, index: int) -> str:
    """Return 64 hexadecimal characters, as in BBBC038."""
    return hashlib.sha256(f"{seed}/{split}/{index}".encode()).hexdigest()


def training_images(train: int, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (ImageId, rgb uint8 (H, W, 3), labels uint16 (H, W)) of each training image in the order of `frames`."""
    for index, (name, frame) in enumerate(frames(train, seed).items()):
        kind = kind_of(frame)
        height, width = kind.crop
        if index % CROPS_PER_FRAME == 0:
            rgb, labels = draw_frame(kind, np.random.default_rng([seed, 0, frame]), (2 * height, 2 * width))
        row, column = divmod(index % CROPS_PER_FRAME, 2)
        window = np.s_[row * height : (row + 1) * height, column * width : (column + 1) * width]
        yield name, rgb[window], labels[window]


def held_out_images(test: int, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield (ImageId, rgb uint8 (H, W, 3), labels uint16 (H, W)) of each test image, drawn as a frame of its own."""
    for index in range(test):
        rgb, labels = draw_frame(kind_of(index), np.random.default_rng([seed, 1, index]), kind_of(index).crop)
        yield image_id(seed, "test", index), rgb, labels


def draw_frame(kind: "Kind", rng: Rng, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Draw one field of view with a nucleus in each quarter: rgb uint8 (H, W, 3), labels uint16 (H, W), 0 = background.

    Nuclei may overlap in the picture; in the labels the pixels of an overlap belong to one of them.
    """
    radius, crowding, touching = (rng.uniform(*limits) for limits in (kind.radius, kind.crowding, kind.touching))
    count = max(4, round(crowding * (shape[0] * shape[1]) / (np.pi * radius**2)))
    limits = kind.limits or (0.6 * radius, 1.6 * radius)
    radii = np.clip(radius * rng.lognormal(0, 0.18, count), *limits)
    nuclei, labels = place_nuclei(rng, shape, radii, kind.stretch, kind.roughness, touching)
    values = kind.draw(rng, shape, nuclei, radius)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8), labels


def draw_fluorescent(rng: Rng, shape: Shape, nuclei: list[Stamp], radius: float) -> np.ndarray:
    """Return grey levels (H, W, 3) float of bright nuclei on a dark background; `radius` is the usual one in pixels."""
    # Grey levels of the usual nucleus and of the background, as dim as in the real images.
    level, dark = rng.uniform(22, 80), rng.uniform(3, 8)
    brightness = np.clip(rng.lognormal(0, 0.35, len(nuclei)), 0.35, 2)
    brightness[rng.random(len(nuclei)) < 0.03] = 2.5  # dividing nuclei are far brighter
    contrast = rng.uniform(0.05, 0.25) * min(1, 8 / radius)  # large nuclei look smoother
    chromatin = 1 + contrast * smooth_noise(rng, shape, 0.3 * radius)
    flatness = rng.uniform(0.55, 0.9)
    signal = paint(shape, nuclei, brightness, lambda depth: flatness + (1 - flatness) * np.sqrt(depth)) * chromatin

    # Out of focus: nuclei of another plane, which the truth leaves out, and light around those in the plane.
    hazy = random_stamps(rng, shape, len(nuclei) // 6, radius * 0.9, (1, 1.6), 0.1)
    haze = blur(paint(shape, hazy, rng.uniform(0.1, 0.35, len(hazy))), 0.35 * radius)
    haze += rng.uniform(0.02, 0.08) * blur(signal, 2 * radius)
    debris = random_stamps(rng, shape, rng.integers(2, 12), 1.3, (1, 2), 0.1)
    specks = paint(shape, debris, rng.uniform(0.2, 0.9, len(debris)))

    glow = np.clip(1 + 0.45 * smooth_noise(rng, shape, 70) + 0.3 * smooth_noise(rng, shape, 22), 0.1, None)
    light = illumination(rng, shape, 0.35) * (blur(signal + specks, rng.uniform(0.6, 1.3)) + haze) * level
    light += illumination(rng, shape, 0.35) * dark * glow
    photons = rng.uniform(6, 20)  # per grey level
    camera = rng.poisson(np.clip(light, 0, None) * photons) / photons + rng.normal(0, 0.5, shape)
    return np.repeat(camera[..., None], 3, axis=2)


def draw_purple(rng: Rng, shape: Shape, nuclei: list[Stamp], radius: float) -> np.ndarray:
    """Return grey levels (H, W, 3) float of a section with purple nuclei on pink, lilac or white tissue."""
    chromatin = np.clip(1 + 0.28 * smooth_noise(rng, shape, 0.2 * radius), 0.2, None)
    rim = rng.uniform(0, 0.6)  # dark outline around a pale inside
    dark = np.clip(rng.normal(0.95, 0.25, len(nuclei)), 0.4, 1.4)
    stain = np.minimum(paint(shape, nuclei, dark, lambda depth: 1 - rim * np.clip(2 * depth, 0, 1)), 1.7) * chromatin
    hazy = random_stamps(rng, shape, len(nuclei) // 4, radius, (1, 2), 0.16)
    stain += blur(paint(shape, hazy, rng.uniform(0.15, 0.4, len(hazy))), 0.25 * radius)

    # Tissue with gaps: clouds of eosin, veined by fibres where a noise field crosses zero.
    clouds = smooth_noise(rng, shape, 90) + 0.4 * smooth_noise(rng, shape, 20) + rng.uniform(-0.4, 1.8)
    tissue = 1 / (1 + np.exp(-4 * clouds))
    fibres = np.exp(-np.square(smooth_noise(rng, shape, (9, 26)) / 0.35))
    grain = 1 + 0.12 * smooth_noise(rng, shape, 3) + 0.15 * smooth_noise(rng, shape, 10)
    eosin = tissue * (0.6 + 0.4 * fibres) * grain + 0.35 * blur(stain, 0.8 * radius)
    stain += rng.uniform(0.02, 0.15) * tissue * grain

    # Optical densities of the two stains per channel; their hue differs from slide to slide.
    haematoxylin = np.array([1.0, 1.55, 0.42]) * rng.uniform(0.8, 1.15) + rng.normal(0, 0.06, 3)
    pink, lilac = np.array([0.08, 0.42, 0.15]), np.array([0.28, 0.42, 0.14])
    hue = rng.random()
    density = stain[..., None] * haematoxylin + eosin[..., None] * (hue * pink + (1 - hue) * lilac)
    white = rng.uniform(215, 240) * np.array([1, 0.985, 1]) * rng.normal(1, 0.008, 3)
    light = white * np.exp(-blur(density, rng.uniform(0.6, 1.2))) * illumination(rng, shape, 0.12)[..., None]
    return light + rng.normal(0, 1.6, (*shape, 3))


def draw_grey(rng: Rng, shape: Shape, nuclei: list[Stamp], radius: float) -> np.ndarray:
    """Return grey levels (H, W, 3) float of dark nuclei in pale, overlapping cells on a light background."""
    wrinkles = np.exp(-np.square(smooth_noise(rng, shape, 14) / 0.12))
    grain = 1 + 0.25 * smooth_noise(rng, shape, 3) + 0.3 * smooth_noise(rng, shape, 14)
    cells = [
        blob(rng, shape, nucleus.centre + rng.normal(0, 9, 2), rng.uniform(28, 62), (1, 1.7), 0.22)
        for nucleus in nuclei
        if rng.random() < 0.6
    ]
    cytoplasm = paint(shape, cells, rng.uniform(0.05, 0.18, len(cells)), lambda depth: 1 + 0.8 * np.exp(-25 * depth))
    density = np.minimum(cytoplasm, 0.45) * np.clip(grain + 0.4 * wrinkles, 0, None)

    chromatin = np.clip(1 + 0.22 * smooth_noise(rng, shape, 2), 0.3, None)
    density += paint(shape, nuclei, np.clip(rng.normal(0.75, 0.2, len(nuclei)), 0.35, 1.3)) * chromatin
    debris = random_stamps(rng, shape, rng.integers(20, 70), 1.3, (2, 5), 0.1)
    density += paint(shape, debris, rng.uniform(0.1, 0.5, len(debris)))
    hazy = random_stamps(rng, shape, len(nuclei) // 5, radius, (1, 1.5), 0.2)
    density += blur(paint(shape, hazy, rng.uniform(0.1, 0.3, len(hazy))), 3)

    backdrop = 1 + 0.012 * smooth_noise(rng, shape, 60) + 0.008 * smooth_noise(rng, shape, 5)
    light = rng.uniform(222, 242) * backdrop * np.exp(-blur(density, rng.uniform(0.6, 1.0)))
    light = light * illumination(rng, shape, 0.1) + rng.normal(0, 2, shape)
    return np.repeat(light[..., None], 3, axis=2)


def place_nuclei(
    rng: Rng, shape: Shape, radii: np.ndarray, stretch: Pair, roughness: float, touching: float
) -> tuple[list[Stamp], np.ndarray]:
    """Place nuclei of these radii (px), the share `touching` of them beside or partly over another one.

    Return their whole outlines, and labels uint16 (H, W): nucleus i has the label i + 1, without the pixels of earlier
    ones. A nucleus that finds no room is left out.
    """
    labels = np.zeros(shape, np.uint16)
    size = np.array(shape)
    # The first four are placed well inside the quarters, so that no crop is empty.
    quarters = size * np.array([(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)])
    crowd = 1 / (1 + np.exp(-3 * smooth_noise(rng, shape, 60)))  # where nuclei tend to be
    nuclei: list[Stamp] = []
    for index, radius in enumerate(radii):
        for _ in range(8):
            if index < len(quarters):
                centre = quarters[index] + rng.uniform(-0.08, 0.08, 2) * size
            elif rng.random() < touching:
                other = nuclei[rng.integers(len(nuclei))]
                angle = rng.uniform(0, 2 * np.pi)
                distance = (radius + other.radius) * rng.uniform(0.82, 1.05)
                centre = other.centre + distance * np.array([np.sin(angle), np.cos(angle)])
            else:
                centre = rng.uniform(0, 1, 2) * size
            inside = ((centre >= 0) & (centre < size)).all()
            if not inside or (index >= len(quarters) and rng.random() > crowd[tuple(centre.astype(int))]):
                continue
            nucleus = blob(rng, shape, centre, radius, stretch, roughness)
            own = nucleus.coverage >= 0.5
            free = largest_part(own & (labels[nucleus.window] == 0))
            if free.sum() < 0.75 * own.sum() or free.sum() < SMALLEST_PIECE:
                continue
            nuclei.append(nucleus)
            labels[nucleus.window][free] = len(nuclei)
            break
    return nuclei, labels


def random_stamps(rng: Rng, shape: Shape, count: int, radius: float, stretch: Pair, roughness: float) -> list[Stamp]:
    """Return blobs anywhere in the frame, of about the same radius in pixels."""
    return [
        blob(rng, shape, rng.uniform(0, 1, 2) * shape, radius * rng.uniform(0.8, 1.3), stretch, roughness)
        for _ in range(count)
    ]


def blob(rng: Rng, shape: Shape, centre: np.ndarray, radius: float, stretch: Pair, roughness: float) -> Stamp:
    """Return an ellipse in any direction with a wavy outline, cut to the frame; outside the frame it has no pixels.

    `stretch` limits the ratio of the axes; `roughness` is the amplitude of the waves, as a share of the radius.
    """
    ratio = np.sqrt(rng.uniform(*stretch))
    angle = rng.uniform(0, 2 * np.pi)
    waves = np.arange(2, 6)
    amplitude = rng.normal(0, roughness, len(waves)) / waves
    phase = rng.uniform(0, 2 * np.pi, len(waves))
    bend = rng.normal(0, 0.6 * roughness)

    reach = int(np.ceil(radius * ratio * (1 + 3 * roughness))) + 2
    window = tuple(
        slice(max(int(middle) - reach, 0), max(min(int(middle) + reach + 1, length), 0))
        for middle, length in zip(centre, shape, strict=True)
    )
    y, x = np.ogrid[window]
    y, x = y - centre[0], x - centre[1]
    along = (x * np.cos(angle) + y * np.sin(angle)) / (radius * ratio)
    across = (y * np.cos(angle) - x * np.sin(angle)) / (radius / ratio)
    across = across + bend * (2 * along**2 - 1)  # some are kidneys
    distance, direction = np.hypot(along, across), np.arctan2(across, along)
    outline = 1 + sum(
        size * np.cos(wave * direction + shift) for wave, size, shift in zip(waves, amplitude, phase, strict=True)
    )
    inward = outline - distance  # in radii, negative outside
    coverage = np.clip(inward * radius + 0.5, 0, 1).astype(np.float32)
    return Stamp(window, coverage, np.clip(inward, 0, 1).astype(np.float32), centre, radius)


def paint(shape: Shape, stamps: list[Stamp], weights: Iterable[float], profile=np.ones_like) -> np.ndarray:
    """Return the sum of the stamps, float32 (H, W), each with its weight times `profile(depth)`; overlaps add up."""
    amount = np.zeros(shape, np.float32)
    for stamp, weight in zip(stamps, weights, strict=True):
        amount[stamp.window] += weight * stamp.coverage * profile(stamp.depth)
    return amount


def largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest 4-connected part of a bool (H, W) mask."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if len(stats) < 2:
        return mask
    return parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def smooth_noise(rng: Rng, shape: Shape, scale: float | Pair) -> np.ndarray:
    """Return noise float32 (H, W) of about mean 0 and deviation 1 that varies over `scale` pixels (down, across)."""
    step = np.broadcast_to(np.maximum(scale, 1), 2)
    # Drawn on a coarse grid and enlarged: as smooth as a wide blur, and far faster.
    coarse = rng.normal(size=np.ceil(shape / step).astype(int) + 3).astype(np.float32)
    fine = cv2.resize(coarse, None, fx=step[1], fy=step[0], interpolation=cv2.INTER_CUBIC)
    margin = step.astype(int)
    # Enlarging averages neighbours, which takes about a quarter off the deviation.
    return 1.3 * fine[margin[0] : margin[0] + shape[0], margin[1] : margin[1] + shape[1]]


def illumination(rng: Rng, shape: Shape, strength: float) -> np.ndarray:
    """Return uneven light, float (H, W): 1 at the brightest spot, down to about 1 - strength far from it."""
    row, column = rng.uniform(0.2, 0.8, 2)
    y, x = np.linspace(0, 1, shape[0])[:, None] - row, np.linspace(0, 1, shape[1])[None, :] - column
    return 1 - strength * rng.uniform(0.4, 1) * np.clip(x * x + y * y, 0, 1)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian; `sigma` in pixels."""
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)


def masks_of(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Yield one bool (H, W) mask for each nucleus of at least `SMALLEST_PIECE` pixels."""
    areas = np.bincount(labels.ravel())
    for label in np.flatnonzero(areas[1:] >= SMALLEST_PIECE) + 1:
        yield labels == label


def encode_image(rgb: np.ndarray) -> bytes:
    """Return a PNG with an opaque alpha channel, as the real images have, of uint8 (H, W, 3)."""
    return encode_png(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA))


def encode_png(image: np.ndarray) -> bytes:
    """Return a PNG of uint8 (H, W) or, in OpenCV's order, (H, W, 4)."""
    return cv2.imencode(".png", image)[1].tobytes()


class Kind(NamedTuple):
    """How the frames of one kind are drawn; pairs are lowest and highest values, lengths are in pixels."""

    crop: Shape  # height and width of one crop; a training frame is twice as high and wide
    radius: Pair  # of the usual nucleus
    limits: Pair | None  # of single ones; None: 0.6 to 1.6 of the usual one
    crowding: Pair  # share of the area that is nuclei
    stretch: Pair  # ratio of a nucleus's axes
    roughness: float  # of its outline, see `blob`
    touching: Pair  # share of nuclei beside another one
    draw: Callable[[Rng, Shape, list[Stamp], float], np.ndarray]


KINDS = {
    "small fluorescent": Kind((256, 256), (7, 9.5), (6, 11), (0.04, 0.2), (1, 1.6), 0.10, (0.1, 0.4), draw_fluorescent),
    "large fluorescent": Kind(
        (360, 360), (22, 27), (18, 33), (0.15, 0.35), (1, 1.9), 0.10, (0.2, 0.45), draw_fluorescent
    ),
    "purple": Kind((256, 320), (8, 15), None, (0.12, 0.3), (1, 2.2), 0.16, (0.3, 0.6), draw_purple),
    "grey": Kind((256, 320), (8, 10), (5, 14), (0.03, 0.06), (1, 1.6), 0.14, (0.3, 0.5), draw_grey),
}
# Of successive frames. All four come within the first five, so that small sets have them too. The rare ones (large 13%,
# purple 16%, grey 2% of the real images) have somewhat more weight than in BBBC038.
KIND_CYCLE = (
    *("small fluorescent", "large fluorescent", "purple", "small fluorescent", "grey"),
    *("small fluorescent", "small fluorescent", "purple", "small fluorescent", "small fluorescent"),
)
