"""Adapt a model to annotated images of your own, and say whether that helps.

nuclei-unet adapt images/ labels/ --out my-lab.onnx
nuclei-unet predict more-images/ results/ --model my-lab.onnx

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

from nuclei_unet.adaptation import Settings, require_tensorflow
from nuclei_unet.batch.pool import cores
from nuclei_unet.commands import arguments as options
from nuclei_unet.errors import InputError, aligned, plural
from nuclei_unet.formats import registry
from nuclei_unet.quiet import quiet_tensorflow

if TYPE_CHECKING:
    from nuclei_unet.adaptation.adapt import Adapted
    from nuclei_unet.network.metadata import Metadata
    from nuclei_unet.sample import Sample
    from nuclei_unet.settings import PredictSettings

SHOWN = 5  # names in a warning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", metavar="IMAGES", help="a folder (with subfolders), a file or a quoted glob")
    parser.add_argument("labels", type=Path, metavar="LABELS", help="their label images, under the same names")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx", help="the adapted model")
    parser.add_argument("--model", help="an .onnx or .zip file, or an address; default: the pretrained model")
    parser.add_argument("--from", dest="origin", choices=registry.READ, help="format of LABELS; default: by its files")
    parser.add_argument("--calibrate-only", action="store_true", help="leave the weights as they are: much faster")
    parser.add_argument(
        "--frames",
        type=_pattern,
        metavar="REGEX",
        help="images whose names share what it finds are parts of one; default: the planes of a file are",
    )
    parser.add_argument("--channel", help="as in predict")
    parser.add_argument("--axes", help="as in predict")
    parser.add_argument("--seed", type=options.natural, default=2018, help="of the random crops; default: 2018")
    parser.add_argument(
        "--threads", type=options.count, metavar="N", help="default: one for each core; may change last digits"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.onnx")


def main(arguments: argparse.Namespace) -> int:
    """Adapt, print what came of it, and return 0, also if it did not help."""
    run(arguments)
    return 0


def run(arguments: argparse.Namespace, replay: "Callable[[Metadata], Sequence[Sample]]" = lambda metadata: ()):
    """Adapt, write the model if it helped, print the report, and return what came of it, an `Adapted`.

    `replay(metadata)` returns images that the model was trained on, or none.
    """
    from nuclei_unet.adaptation.adapt import adapt, annotated
    from nuclei_unet.prediction import models

    try:
        require_tensorflow()
    except InputError as error:
        raise InputError(f"{error}; pip install 'nuclei-unet[train]'") from None
    quiet_tensorflow()
    out = arguments.out
    if out.suffix != ".onnx":
        raise InputError(f"{out}: the adapted model is an ONNX file; give it a name that ends in .onnx")
    if out.exists() and not arguments.overwrite:
        raise InputError(f"{out}: exists; --overwrite replaces it")
    pairs = find(arguments)
    path = models.find(arguments.model)  # once: an address may lead elsewhere a minute later
    metadata, _, _ = models.describe(path)
    samples = []
    for pair in tqdm(pairs, "read", unit="image", disable=None, leave=False):
        image = pair.read()
        samples.append(annotated(pair.name, image, pair.labels(image.shape[:2]), metadata.normalize))
    settings = Settings(arguments.calibrate_only, seed=arguments.seed, threads=arguments.threads or cores())
    with tqdm(desc="adapt", unit="step", disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        frames = [pair.frame for pair in pairs]
        adapted = adapt(samples, path, settings, replay=replay(metadata), frames=frames, progress=progress)
    if adapted.helped:
        adapted.save(out)
    nuclei = sum(int(sample.labels.max()) for sample in samples)
    print(f"{plural(len(samples), 'image')}, {nuclei:,} nuclei; {text(adapted, metadata.chosen, arguments)}")
    return adapted


@dataclass(frozen=True)
class Pair:
    """A plane of an image and its label image, neither of them read."""

    name: str
    frame: str
    read: Callable[[], np.ndarray]
    labels: Callable[[tuple[int, int]], np.ndarray]  # of a shape


def find(arguments: argparse.Namespace) -> list[Pair]:
    """Return the images that have a label image of the same name; warn about the others on stderr.

    Raises InputError if nothing can be read, there is no pair, or there are more than 100.
    """
    from nuclei_unet.adaptation.adapt import check
    from nuclei_unet.batch.files import named
    from nuclei_unet.formats.label_image import instances
    from nuclei_unet.formats.planes import planes
    from nuclei_unet.formats.reading import find_images, open_images

    folder, truth = arguments.images, arguments.labels
    sources = registry.find_labels(truth, arguments.origin)
    used = {source.file.resolve() for source in sources.values() if source.file}
    images = {
        f"{task.name}{plane.suffix}": (task.path, plane)
        for task in named(find_images([folder]))
        if task.path.resolve() not in used  # label images may lie beside their images
        for image in open_images(task.path, arguments.axes)
        for plane in planes(image, arguments.channel)
    }
    names = [name for name in images if name in sources]
    if not names:
        first = f"{next(iter(images), 'nothing')} and {next(iter(sources), 'nothing')}"
        raise InputError(f"{folder} and {truth} have no name in common: they hold, for example, {first}")
    _warn("no labels for", "image", [name for name in images if name not in sources])
    _warn("no image for", "label image", [name for name in sources if name not in images])
    check(len(names))

    def pair(name: str) -> Pair:
        path, plane = images[name]
        match = arguments.frames and arguments.frames.search(name)
        return Pair(
            name,
            "/".join(match.groups("") or [match[0]]) if match else str(path),
            lambda: plane.read()[0],
            lambda shape: instances(sources[name].load(shape), f"{name} in {truth}"),
        )

    return [pair(name) for name in names]


def _warn(missing: str, what: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        print(f"warning: {missing} {plural(len(names), what)}: {', '.join(names[:SHOWN])}{more}", file=sys.stderr)


def text(adapted: "Adapted", before: "PredictSettings", arguments: argparse.Namespace) -> str:
    """Return the report: a table of all variants, what was chosen, and whether it helped."""
    from nuclei_unet.adaptation.adapt import MARGIN

    where = "images that it was not adapted to" if adapted.cross_validated else "the same images"
    scores = {name: row["dsb_score"] for name, row in adapted.scores.items()}
    rows = [(name, *(f"{row[key]:.3f}" for key in ("dsb_score", "ap50", "iou")))
            for name, row in adapted.scores.items()]  # fmt: skip
    table = aligned([("", "dsb_score", "AP50", "pixel IoU"), *rows])
    lines = [f"each variant is scored on {where}:", "", *table, ""]
    if not adapted.cross_validated:
        lines.append("There are too few to hold some back, so only the offset of outlines was tried.")
    plain, out = scores["baseline"], arguments.out
    if adapted.metadata is None:
        most = max(scores.values())
        return "\n".join([
            *lines,
            f"It did not help: {plain:.3f} as it was, at best {most:.3f}, and less than {MARGIN} more may be chance.",
            f"Nothing was written. Go on with {arguments.model or 'the pretrained model'}.",
        ])  # fmt: skip
    steps, after = adapted.metadata.adapted.steps, scores[adapted.chosen]
    changed = [f"{steps} steps of training"] if steps else []
    changed += [f"{key} {getattr(before, key):g} -> {value:g}" for key, value in adapted.metadata.chosen
                if value != getattr(before, key)]  # fmt: skip
    return "\n".join([
        *lines,
        f"Chosen: {adapted.chosen} ({', '.join(changed)}).",
        f"It helped by {after - plain:+.3f}: {plain:.3f} -> {after:.3f} on {where}.",
        f"{out} is the adapted model: nuclei-unet predict IMAGES RESULTS --model {out}",
    ])  # fmt: skip


def _pattern(value: str) -> re.Pattern:
    try:
        return re.compile(value)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{value!r} is no regular expression ({error})") from None
