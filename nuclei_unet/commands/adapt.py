"""Adapt a model to annotated images of your own, and say whether that helps.

nuclei-unet adapt images/ labels/ --out my-lab.keras
nuclei-unet predict more-images/ results/ --model my-lab.keras

Takes 1 to 100 images with their label images (in any format that `score` and `convert` read), paired by name. Measures
where their annotators draw outlines, chooses thresholds, and goes on training the network, in minutes. Each variant is
scored on images that it was not adapted to, beside the model as it was. If none is better, nothing is written.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from nuclei_unet.batch import pool
from nuclei_unet.errors import InputError, plural

if TYPE_CHECKING:
    from nuclei_unet.adaptation.adapt import Adapted
    from nuclei_unet.network.metadata import Metadata
    from nuclei_unet.sample import ArraySample, Sample
    from nuclei_unet.settings import PredictSettings

SHOWN = 5  # names in a warning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", metavar="IMAGES", help="a folder (with subfolders), a file or a quoted glob")
    parser.add_argument("labels", type=Path, metavar="LABELS", help="their label images, under the same names")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.keras", help="the adapted model")
    parser.add_argument("--model", help="a .keras, .onnx or .zip file, or an address; default: the pretrained model")
    parser.add_argument("--calibrate-only", action="store_true", help="leave the weights as they are: much faster")
    parser.add_argument(
        "--frames",
        type=_pattern,
        metavar="REGEX",
        help="images whose names share what it finds are parts of one; default: the planes of a file are",
    )
    parser.add_argument("--channel", help="as in predict")
    parser.add_argument("--pixel-size", type=_positive, metavar="UM", help="as in predict")
    parser.add_argument("--scale", type=_positive, help="as in predict")
    parser.add_argument("--seed", type=_natural, default=2018, help="of the random crops; default: 2018")
    parser.add_argument(
        "--threads", type=_natural, metavar="N", help="default: one for each core; may change last digits"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.keras")


def main(arguments: argparse.Namespace) -> int:
    """Adapt, print what came of it, and return 0, also if it did not help."""
    run(arguments)
    return 0


def run(
    arguments: argparse.Namespace, replay: Callable[["Metadata"], Sequence["Sample"]] = lambda metadata: ()
) -> "Adapted":
    """Adapt as the arguments say, write the model if it helped, print the report, and return what came of it.

    `replay(metadata)` returns images that the model was trained on, or none.
    """
    from nuclei_unet.network import untrusted
    from nuclei_unet.prediction import models
    from nuclei_unet.quiet import quiet_tensorflow

    models.require_tensorflow("adapt")
    quiet_tensorflow()
    out = arguments.out
    if out.suffix != ".keras":
        raise InputError(f"{out}: the adapted model is a Keras model; give it a name that ends in .keras")
    if out.exists() and not arguments.overwrite:
        raise InputError(f"{out}: exists; --overwrite replaces it")
    pairs = find(arguments)
    path = models.find(arguments.model)
    untrusted.check(path, arguments.threads or pool.cores())
    metadata, _, _ = models.describe(path)
    bar = tqdm(desc="read", total=len(pairs), unit="image", disable=None, leave=False)
    with bar:
        samples = [_read(pair, arguments, metadata, bar) for pair in pairs]

    from nuclei_unet.adaptation import adapt

    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    with tqdm(desc="adapt", total=1.0, disable=None, bar_format=layout, smoothing=0.1) as bar:

        def progress(done: float, total: float) -> None:
            bar.update(done / total - bar.n)

        adapted = adapt.adapt(
            samples,
            model=path,
            replay=replay(metadata),
            frames=[pair.frame for pair in pairs],
            calibrate_only=arguments.calibrate_only,
            seed=arguments.seed,
            threads=arguments.threads or pool.cores(),
            progress=progress,
        )
    if adapted.helped:
        adapted.save(out)
    nuclei = sum(int(sample.labels.max()) for sample in samples)
    print(text(adapted, len(samples), nuclei, metadata.predict, arguments.model or "the pretrained model", out))
    return adapted


@dataclass(frozen=True)
class Pair:
    """A plane of an image and its label image, neither of them read."""

    name: str
    frame: str
    read: Callable[[], tuple[np.ndarray, float | None]]  # the plane, and its pixel size
    labels: Callable[[tuple[int, int]], np.ndarray]  # of a shape


def find(arguments: argparse.Namespace) -> list[Pair]:
    """Return the images that have a label image of the same name; warn about the others on stderr.

    Raises InputError if nothing can be read, there is no pair, or there are more than 100.
    """
    from nuclei_unet.batch.files import named
    from nuclei_unet.formats.label_image import instances
    from nuclei_unet.formats.planes import planes
    from nuclei_unet.formats.reading import find_images, open_images
    from nuclei_unet.formats.registry import find_labels

    sources = find_labels(arguments.labels)
    used = {source.file.resolve() for source in sources.values() if source.file}
    images = {
        f"{task.name}{plane.suffix}": (task, image, plane)
        for task in named(find_images([arguments.images]))
        if task.path.resolve() not in used  # label images may lie beside their images
        for image in open_images(task.path)
        for plane in planes(image, arguments.channel)
    }
    names = [name for name in images if name in sources]
    if not names:
        first = f"{next(iter(images), 'nothing')} and {next(iter(sources), 'nothing')}"
        raise InputError(
            f"{arguments.images} and {arguments.labels} have no name in common: they hold, for example, {first}"
        )
    for missing, what, left in (
        ("no labels for", "image", [name for name in images if name not in sources]),
        ("no image for", "label image", [name for name in sources if name not in images]),
    ):
        if left:
            more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
            print(f"warning: {missing} {plural(len(left), what)}: {', '.join(left[:SHOWN])}{more}", file=sys.stderr)
    if len(names) > 100:
        raise InputError(f"{len(names)} annotated images in {arguments.labels}; adapt takes 1 to 100")

    def pair(name: str) -> Pair:
        task, image, plane = images[name]
        source = sources[name]
        pattern = arguments.frames and arguments.frames.search(name)
        return Pair(
            name,
            "/".join(pattern.groups("") or [pattern[0]]) if pattern else f"{task.path}",
            lambda: (plane.read()[0], image.pixel_size),
            lambda shape: instances(source.load(shape), f"{name} in {arguments.labels}"),
        )

    return [pair(name) for name in names]


def _read(pair: Pair, arguments: argparse.Namespace, metadata: "Metadata", bar: tqdm) -> "ArraySample":
    """Read an image and its labels, as the network is to see them."""
    from nuclei_unet.adaptation.adapt import annotated
    from nuclei_unet.prediction.scale import scale_for

    image, pixel_size = pair.read()
    labels = pair.labels(image.shape[:2])
    scale = arguments.scale or scale_for(arguments.pixel_size or pixel_size, metadata.diameters)
    bar.update()
    try:
        return annotated(pair.name, image, labels, metadata.normalize, scale=scale)
    except InputError as error:
        raise error if str(error).startswith(pair.name) else InputError(f"{pair.name}: {error}") from None


def text(adapted: "Adapted", images: int, nuclei: int, before: "PredictSettings", parent: Path | str, out: Path) -> str:
    """Return the report: a table of all variants, what was chosen, and whether it helped."""
    from nuclei_unet.adaptation.adapt import MARGIN
    from nuclei_unet.commands.score_text import aligned

    where = "images that it was not adapted to" if adapted.cross_validated else "the same images"
    rows = [("", "dsb_score", "AP50", "pixel IoU")]
    for name, row in adapted.rows.items():
        rows.append((name, *(f"{row[key]:.3f}" for key in ("dsb_score", "ap50", "iou"))))
    lines = [
        f"{plural(images, 'image')}, {nuclei:,} nuclei; each variant is scored on {where}:",
        "",
        *aligned(rows),
        "",
    ]
    if not adapted.cross_validated:
        lines.append("There are too few to hold some back, so only the offset of outlines was tried.")
    plain = adapted.rows["plain"]["dsb_score"]
    if not adapted.helped:
        best = max(row["dsb_score"] for row in adapted.rows.values())
        lines.append(
            f"It did not help: {plain:.3f} as it was, at best {best:.3f}, and less than {MARGIN} more may be chance.\n"
            f"Nothing was written. Go on with {parent}."
        )
        return "\n".join(lines)
    made, after = adapted.metadata, adapted.rows[adapted.chosen]["dsb_score"]
    changed = [f"{key} {getattr(before, key):g} -> {value:g}" for key, value in made.predict
               if value != getattr(before, key)]  # fmt: skip
    if made.adapted.steps:
        changed.insert(0, f"{made.adapted.steps} steps of training")
    lines += [
        f"Chosen: {adapted.chosen} ({', '.join(changed)}).",
        f"It helped by {after - plain:+.3f}: {plain:.3f} -> {after:.3f} on {where}.",
        f"{out} is the adapted model: nuclei-unet predict IMAGES RESULTS --model {out}",
    ]
    return "\n".join(lines)


def _pattern(value: str) -> re.Pattern:
    try:
        return re.compile(value)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no regular expression ({error})") from None


def _positive(value: str) -> float:
    number = float(value)
    if not 0 < number < 10_000:
        raise argparse.ArgumentTypeError(f"{value}: must be above 0 and below 10,000")
    return number


def _natural(value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value):
        raise argparse.ArgumentTypeError(f"{value!r} is no whole number from 0 on")
    return int(value)
