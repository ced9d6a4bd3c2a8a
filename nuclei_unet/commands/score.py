"""The command `nuclei-unet score`: all scores of label images, from any tool, against the truth."""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nuclei_unet.commands import arguments as options
from nuclei_unet.errors import InputError, aligned
from nuclei_unet.evaluation import outcomes, scores
from nuclei_unet.evaluation.outcomes import Outcome
from nuclei_unet.files import fresh_file
from nuclei_unet.formats.label_image import instances
from nuclei_unet.formats.reading import Images
from nuclei_unet.formats.registry import READ, LabelSource, find_labels
from nuclei_unet.formats.tables import csv_bytes

# What became of true nuclei, then of predicted ones; the columns of per_image.csv.
OF_TRUTH = {"correct": Outcome.CORRECT, "missed": Outcome.MISSED, "split": Outcome.SPLIT, "merged": Outcome.MERGED}
OF_PREDICTED = {"false": Outcome.FALSE, "predicted_split": Outcome.SPLIT, "predicted_merged": Outcome.MERGED}
WORST_BY, N_WORST = "dsb_score", 5  # a column, and how many images


@dataclass(frozen=True)
class Scored:
    """What is kept of one image: its counts, and its row of per_image.csv."""

    counts: scores.Counts
    row: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "labels",
        metavar="LABELS",
        type=Path,
        help="predicted label images: a folder, also of subfolders, or a file, in any format that convert reads; "
        "endings such as _labels or _cp_masks behind the images' names do not matter",
    )
    parser.add_argument("truth", metavar="TRUTH", type=Path, help="the true ones, under the same names, in any format")
    for option, name, what in (("--from", "origin", "LABELS"), ("--truth-from", "truth_origin", "TRUTH")):
        parser.add_argument(option, dest=name, choices=READ, help=f"format of {what}; default: by its files")
    options.add_sizes(parser)
    parser.add_argument("--write", metavar="FOLDER", type=Path, help="also write scores.json and per_image.csv there")


def main(arguments: argparse.Namespace) -> int:
    """Print the scores, and write them if asked to. Return 1 if an image could not be scored, else 0.

    Raises InputError if nothing can be scored.
    """
    images, faults = score_sets(
        (arguments.labels, find_labels(arguments.labels, arguments.origin)),
        (arguments.truth, find_labels(arguments.truth, arguments.truth_origin)),
        Images(arguments.images, arguments.shape),
    )
    if images:
        values = summary(images)
        print(text(values, images, shutil.get_terminal_size((100, 24)).columns))
        if arguments.write:
            write(arguments.write, values, images)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    if faults:
        print(f"error: {len(faults)} of {len(images) + len(faults)} images are not in the scores", file=sys.stderr)
    return 1 if faults else 0


# A path, and the label images that are there.
Labels = tuple[Path, dict[str, LabelSource]]


def score_sets(labels: Labels, truth: Labels, images: Images) -> tuple[list[Scored], list[str]]:
    """Score each image that both sets have, by name. `images` say how large they are if the labels do not.

    Returns the images in the order of their names, and one line for each that could not be scored: it is missing on one
    side, is no label image, or differs in size. Raises InputError if the sets have no name in common.
    """
    sets = labels, truth
    if not labels[1].keys() & truth[1].keys():
        names = " and ".join(next(iter(sources)) for _, sources in sets)
        raise InputError(f"{labels[0]} and {truth[0]} have no name in common: they hold, for example, {names}")
    scored, faults = [], []
    for name in tqdm(sorted(labels[1].keys() | truth[1].keys()), "score", unit="image", disable=None):
        if missing := [path for path, sources in sets if name not in sources]:
            faults.append(f"{name}: no label image in {missing[0]}")
            continue
        try:
            scored.append(score(name, *read_pair(name, labels, truth, images)))
        except InputError as error:
            faults.append(str(error))
    return scored, faults


def read_pair(name: str, labels: Labels, truth: Labels, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and true label image; if one side alone does not say how large it is, it is as the other."""
    need = [sources[name].needs_shape for _, sources in (labels, truth)]
    shape = images.shape(name) if any(need) else None
    if all(need) and shape is None:
        raise InputError(f"{name}: neither file says how large the image is; give --images or --shape")
    arrays: dict[Path, np.ndarray] = {}
    for path, sources in sorted((labels, truth), key=lambda side: side[1][name].needs_shape):
        arrays[path] = instances(sources[name].load(shape), f"{name} in {path}")
        shape = shape or arrays[path].shape
    return arrays[labels[0]], arrays[truth[0]]


def score(name: str, predicted: np.ndarray, truth: np.ndarray) -> Scored:
    """Score one image. Raises InputError if the two label images (H, W) differ in size."""
    if predicted.shape != truth.shape:
        (height, width), (true_height, true_width) = predicted.shape, truth.shape
        raise InputError(f"{name}: {height} x {width} pixels, but the truth has {true_height} x {true_width}")
    of_truth, of_predicted = outcomes.errors(truth, predicted)
    counts = scores.count(truth, predicted)
    row = {
        "image": name,
        "height": truth.shape[0],
        "width": truth.shape[1],
        "nuclei": counts.instances.n_truth,
        "predicted_nuclei": counts.instances.n_predicted,
        **scores.of_image(counts),
        **{column: int((of_truth == outcome).sum()) for column, outcome in OF_TRUTH.items()},
        **{column: int((of_predicted == outcome).sum()) for column, outcome in OF_PREDICTED.items()},
    }
    return Scored(counts, row)


def summary(images: Sequence[Scored]) -> dict:
    """Return scores.json: numbers of images and nuclei, {group: {key: value}} of all scores, and what became of nuclei.

    The groups and keys are those of the catalogue, `scores.SCORES`. `outcomes` counts nuclei: correct, missed, split
    and merged true ones, then false, split and merged predictions.
    """

    def total(column: str) -> int:
        return sum(image.row[column] for image in images)

    return {
        "n_images": len(images),
        "n_nuclei": total("nuclei"),
        "n_predicted_nuclei": total("predicted_nuclei"),
        **scores.of_images([image.counts for image in images]),
        "outcomes": {name: total(name) for name in (*OF_TRUTH, *OF_PREDICTED)},
    }


def write(folder: Path, values: Mapping, images: Sequence[Scored]) -> None:
    """Write scores.json and per_image.csv; both, or none."""
    columns = {column: np.array([image.row[column] for image in images]) for column in images[0].row}
    columns["image"] = columns["image"].astype(object)
    with ExitStack() as files:
        target = files.enter_context(fresh_file(folder / "scores.json"))
        target.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        files.enter_context(fresh_file(folder / "per_image.csv")).write_bytes(csv_bytes(columns))


def text(values: Mapping, images: Sequence[Scored], width: int) -> str:
    """Return all scores and the worst images as people read them, in lines of about `width` characters."""
    became = {name: f"{count:,} {name.removeprefix('predicted_')}" for name, count in values["outcomes"].items()}
    shown = (WORST_BY, "nuclei", "predicted_nuclei", *OF_TRUTH, "false")
    worst = sorted((image.row for image in images), key=lambda row: row[WORST_BY])[:N_WORST]
    rows = [(row["image"], f"{row[WORST_BY]:.3f}", *(str(row[column]) for column in shown[1:])) for row in worst]
    return "\n".join([
        f"{values['n_images']:,} images, {values['n_nuclei']:,} nuclei, {values['n_predicted_nuclei']:,} predicted",
        "",
        *_score_lines(values, width),
        "",
        f"of the nuclei:       {', '.join(became[name] for name in OF_TRUTH)}",
        f"of the predictions:  {', '.join(became[name] for name in ('correct', *OF_PREDICTED))}",
        "",
        *aligned([("worst images", *(name.replace("_nuclei", "") for name in shown)), *rows]),
    ])  # fmt: skip


def _score_lines(values: Mapping, width: int) -> list[str]:
    """Return a line for each score: name, value, 95% interval if it has one, and its meaning, wrapped."""
    rows = []
    for score in scores.listed():
        if score.over not in ("low", "high"):  # they stand beside their score
            group = values[score.group]
            low, high = (group.get(f"{score.key}_{end}") for end in ("low", "high"))
            interval = "" if low is None else f"{low:.3f}-{high:.3f}"
            rows.append((score.name, f"{group[score.key]:.3f}", interval, score.meaning))
    heads = aligned([("score", "value", "95% interval"), *(row[:3] for row in rows)])
    room = max(width - len(heads[0]) - 2, 40)
    lines = [heads[0]]
    for head, row in zip(heads[1:], rows, strict=True):
        first, *others = textwrap.wrap(row[3], room)
        lines += [f"{head}  {first}", *(" " * (len(head) + 2) + other for other in others)]
    return lines
