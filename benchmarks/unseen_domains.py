"""How well does a recipe cope with looks that it was not trained on? Whole looks are held out, one after the other.

    python -m benchmarks.unseen_domains [--steps 200] [--full] [name ...]

A look is a image type at one source size: images of one microscope and one annotator, as far as the data tell.
Validation frames share their microscopes with training, so they cannot say what helps elsewhere; this can. Each variant
is params.yaml with a few values changed. It is trained without some looks (their validation images included), and
scored on up to 24 images of each look that it has not seen, one view each. The figure to choose by is the mean
dsb_score over looks. The second one, of validation images with looks that were trained on, guards what is known.

The short form trains four times, each time without two looks that have little in common; `--full` trains once for each
look. Test images are not read. Needs `dvc repro preprocess`. Rows are kept in
benchmarks/results/unseen_domains.csv, and a run with names replaces only their rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from nuclei_unet.evaluation import metrics
from nuclei_unet.network import runtime
from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.sample import Sample
from nuclei_unet.training import fit
from pipeline import layout, params
from pipeline.dataset import processed

RESULT = Path("benchmarks/results/unseen_domains.csv")
# Of each look, spread over its frames: enough to compare, and 256x256 alone has 334.
SCORED = 24
LOOKS: dict[str, tuple[str, tuple[str, ...]]] = {  # image_types (all that start so) and sizes
    "purple on purple": ("purple-on-purple", ()),
    "purple on white": ("purple-on-white", ()),
    "grey tissue 1024x1024": ("grey-tissue", ()),
    "fluorescent 256x256": ("", ("256x256",)),
    "fluorescent 360x360": ("", ("360x360",)),
    "fluorescent 520x696": ("", ("520x696",)),
    "fluorescent 512x640, 603x1272": ("", ("512x640", "603x1272")),
}
FOLDS = (
    ("purple on purple", "fluorescent 360x360"),
    ("grey tissue 1024x1024", "fluorescent 520x696"),
    ("fluorescent 256x256",),
    ("purple on white", "fluorescent 512x640, 603x1272"),
)
# Without what the default has: the rows have to mean the same after the default has changed.
PLAIN = {"train.augment.cytoplasm": 0, "train.augment.transfer": 0, "train.augment.mix": 0}
OWN_ENCODER = PLAIN | {
    "train.model.encoder": "none",
    "train.model.filters": [32, 64, 128, 192],
    "train.model.dropout": [0, 0, 0, 0.1],
}
PRETRAINED = PLAIN | {
    "train.model.encoder": "efficientnet-lite0",
    "train.model.filters": [32, 64, 96],
    "train.model.dropout": [0, 0, 0],
}
STRONGER = {
    "train.augment.gamma": [0.4, 2.5],
    "train.augment.contrast": 0.5,
    "train.augment.noise": 0.1,
    "train.augment.blur": 2.5,
    "train.augment.zoom": [0.5, 2.0],
}
OTHER_LOOKS = {"train.augment.cytoplasm": 0.3, "train.augment.transfer": 0.2, "train.augment.mix": 0.2}
VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "seed 1": {"train.seed": 1},
    "stronger changes of intensity and size": STRONGER,
    "own encoder": OWN_ENCODER,
    "pretrained": PRETRAINED,
    "pretrained, seed 1": PRETRAINED | {"train.seed": 1},
    "pretrained, one level more": PRETRAINED
    | {"train.model.filters": [32, 64, 96, 128], "train.model.dropout": [0, 0, 0, 0]},
    "pretrained, encoder_lr_multiplier 0.3": PRETRAINED | {"train.encoder_lr_multiplier": 0.3},
    "pretrained, encoder_lr_multiplier 1": PRETRAINED | {"train.encoder_lr_multiplier": 1.0},
    "pretrained, stronger changes": PRETRAINED | STRONGER,
    "pretrained, cytoplasm": PRETRAINED | {"train.augment.cytoplasm": 0.3},
    "pretrained, transfer": PRETRAINED | {"train.augment.transfer": 0.3},
    "pretrained, mix": PRETRAINED | {"train.augment.mix": 0.3},
    "pretrained, cytoplasm, transfer and mix": PRETRAINED | OTHER_LOOKS,
    "pretrained, invert": PRETRAINED | {"train.augment.invert": 0.2},
    "all three, encoder_lr_multiplier 0.3": PRETRAINED | OTHER_LOOKS | {"train.encoder_lr_multiplier": 0.3},
    "all three, zoom 0.5 to 2": PRETRAINED | OTHER_LOOKS | {"train.augment.zoom": [0.5, 2.0]},
}


def main() -> None:
    """Run the variants, or, with `--only`, one of them without some looks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(VARIANTS)} (default: all)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--full", action="store_true", help="one training for each look, instead of four")
    parser.add_argument("--only", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        name, *looks = arguments.only
        print(json.dumps(measure(VARIANTS[name], arguments.steps, looks)))
        return
    for name in set(arguments.names) - set(VARIANTS):
        parser.error(f"no variant {name!r}; there are: {', '.join(VARIANTS)}")
    folds = [(look,) for look in LOOKS] if arguments.full else FOLDS
    for name in arguments.names or VARIANTS:
        row: dict[str, object] = {"variant": name, "steps": arguments.steps, "folds": len(folds)}
        guards = []
        for looks in folds:
            command = [
                sys.executable,
                "-m",
                "benchmarks.unseen_domains",
                "--steps",
                f"{arguments.steps}",
                "--only",
                name,
                *looks,
            ]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            found = json.loads(output.splitlines()[-1])
            print(name, found, flush=True)
            guards.append(found.pop("known looks"))
            row |= found
        row["mean over looks"] = float(np.mean([row[look] for look in LOOKS]))
        row["known looks"] = float(np.mean(guards))
        keep(row)


def keep(row: dict[str, object]) -> None:
    """Write a row to the table in place of one of the same variant and form."""
    table = pd.DataFrame([row])
    if RESULT.exists():
        before = pd.read_csv(RESULT)
        same = (before.variant == row["variant"]) & (before.steps == row["steps"]) & (before.folds == row["folds"])
        table = pd.concat([before[~same], table])
    RESULT.parent.mkdir(exist_ok=True)
    table.to_csv(RESULT, index=False, float_format="%.4f", lineterminator="\n")
    print(table.to_string(index=False), flush=True)


def look_of(image_type: str, height: int, width: int) -> str | None:
    """Return the look of an image; None for the few that belong to none."""
    for look, (start, sizes) in LOOKS.items():
        if start == image_type if start else "fluorescent" in image_type and f"{height}x{width}" in sizes:
            return look
    return None


def measure(changes: dict[str, object], steps: int, held_out: list[str]) -> dict[str, float]:
    """Train one variant without some looks and return its scores on each of them and on the others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        short = {"train.epochs": 1, "train.steps_per_epoch": steps}
        path.write_text(params.override(layout.PARAMS.read_text(), short | changes))
        settings = params.load(path)
    runtime.configure(settings.train)
    rows = processed.read_manifest().set_index("image_id")
    looks = {image_id: look_of(row.image_type, row.height, row.width) for image_id, row in rows.iterrows()}
    training, validation = (
        [sample for sample in processed.read_split(split) if looks[sample.image_id] not in held_out]
        for split in ("train", "validation")
    )
    model, _ = fit.train(training, validation, settings.train, settings.preprocess.channels, lambda *_: None)
    views = settings.evaluate.model_copy(update={"views": "thorough", "orientations": 1, "scales": (1.0,)})
    predictor = Predictor(TensorFlowNetwork(model, settings.train.model), settings.train.model, views)
    samples = {s.image_id: s for split in ("train", "validation") for s in processed.read_split(split)}
    found = {"known looks": score(predictor, validation)}
    for look in held_out:
        # By frame, so that a few of each microscope's fields are taken, not neighbours.
        ids = sorted((rows.frame[i], i) for i in samples if looks[i] == look)
        chosen = np.unique(np.linspace(0, len(ids) - 1, SCORED).round().astype(int))
        found[look] = score(predictor, [samples[ids[n][1]] for n in chosen])
    return found


def score(predictor: Predictor, samples: list[Sample]) -> float:
    """Return the mean dsb_score."""
    counts = [metrics.instance_counts(s.labels, predictor.labels(s.image, s.labels.shape)) for s in samples]
    return float(np.mean([metrics.dsb_score(count) for count in counts]))


if __name__ == "__main__":
    main()
