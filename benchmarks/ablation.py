"""What is each choice of the recipe worth? Train without it, and score on original and on changed validation images.

    python -m benchmarks.ablation [--steps 500] [--jobs 2] [name ...]

Each variant is params.yaml with a few values changed and a short training (one thread per job, so that parallel jobs
do not disturb each other). The first score is the mean dsb_score of the validation images, each predicted at its own
size and at half, three quarters and one and a half times that. It says how well the network knows its data. The second
is the mean score with looks that are not in the training data: darker and brighter by gamma, blurred, noisy, unevenly
lit, half as large. It says how well the network copes with a new microscope. Test images are not read. Needs
`dvc repro preprocess`. Rows are kept in benchmarks/results/ablation.csv; a run with names replaces only their rows.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from nuclei_unet.evaluation import metrics
from nuclei_unet.images import normalize, to_rgb
from nuclei_unet.network import runtime
from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.sample import ArraySample, Sample
from nuclei_unet.training import fit
from pipeline import layout, params
from pipeline.dataset import archives, processed

RESULT = Path("benchmarks/results/ablation.csv")
VARIANTS: dict[str, dict[str, object]] = {
    "default": {},
    "seed 1": {"train.seed": 1},
    "seed 2": {"train.seed": 2},
    "foreground alone": {"train.targets": ["foreground"]},
    "no border": {"train.targets": ["foreground", "distance"]},
    "no distance": {"train.targets": ["foreground", "border"]},
    "binary cross-entropy alone": {"train.loss": "bce"},
    "intensities as they come": {"preprocess.nucleus_intensity": None},
    "colours": {"preprocess.channels": 3},
    "images as they come": {"train.type_balance": 0},
    "no zoom": {"train.augment.zoom": [1, 1]},
    "gamma 0.4 to 2.5": {"train.augment.gamma": [0.4, 2.5]},
    "no change of intensities": {
        "train.augment.gamma": [1, 1],
        "train.augment.contrast": 0,
        "train.augment.noise": 0,
        "train.augment.blur": 0,
    },
    "no rotation": {"train.augment.rotate": False},
    "no batch normalization": {"train.model.normalization": "none"},
}
LOOKS = {
    "gamma 2": lambda pixels, rng: pixels**2,
    "gamma 0.5": lambda pixels, rng: pixels**0.5,
    "blur 1.5": lambda pixels, rng: cv2.GaussianBlur(pixels, (0, 0), 1.5),
    "noise 0.1": lambda pixels, rng: pixels + 0.1 * np.ptp(pixels) * rng.standard_normal((*pixels.shape[:2], 1)),
    "uneven light": lambda pixels, rng: pixels * np.linspace(0.4, 1, pixels.shape[1])[None, :, None],
    "half size": lambda pixels, rng: cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
}


def main() -> None:
    """Run the variants, or, with `--only`, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(VARIANTS)} (default: all)")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(VARIANTS[arguments.only], arguments.steps)))
        return
    for name in set(arguments.names) - set(VARIANTS):
        parser.error(f"no variant {name!r}; there are: {', '.join(VARIANTS)}")

    def run(name: str) -> dict:
        command = [sys.executable, "-m", "benchmarks.ablation", "--steps", str(arguments.steps), "--only", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        row = {"variant": name, "steps": arguments.steps, **json.loads(output.splitlines()[-1])}
        print(row, flush=True)
        return row

    with ThreadPoolExecutor(arguments.jobs) as pool:
        table = pd.DataFrame(pool.map(run, arguments.names or VARIANTS))
    if RESULT.exists():
        before = pd.read_csv(RESULT)
        table = pd.concat([before[~before.variant.isin(table.variant)], table])
    order = list(VARIANTS)
    table = table.sort_values("variant", key=lambda names: names.map(order.index))
    RESULT.parent.mkdir(exist_ok=True)
    table.to_csv(RESULT, index=False, float_format="%.4f", lineterminator="\n")
    print(table.to_string(index=False))


def measure(changes: dict[str, object], steps: int) -> dict[str, float]:
    """Train one variant and return its scores."""
    short = {"train.threads": 1, "train.epochs": 1, "train.steps_per_epoch": steps}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_text(params.override(layout.PARAMS.read_text(), short | changes))
        settings = params.load(path)
    runtime.configure(settings.train)
    # Normalised here, since a variant may differ from data/processed/ in this.
    training, validation = (
        changed(processed.read_split(split), lambda pixels, rng: pixels, settings) for split in ("train", "validation")
    )
    model, _ = fit.train(training, validation, settings.train, settings.preprocess.channels, lambda *_: None)
    scores = score(model, settings, validation)
    # Only every second image, since there are six looks.
    half = processed.read_split("validation")[::2]
    looks = {name: score(model, settings, changed(half, look, settings)) for name, look in LOOKS.items()}
    return {"validation": scores, "other looks": float(np.mean(list(looks.values()))), **looks}


def score(model, settings: params.Params, samples: list[Sample]) -> float:
    """Return the mean dsb_score."""
    views = settings.evaluate.model_copy(update={"views": "thorough", "orientations": 1})
    predictor = Predictor(TensorFlowNetwork(model, settings.train.model), settings.train.model, views)
    counts = [metrics.instance_counts(s.labels, predictor.labels(s.image, s.labels.shape)) for s in samples]
    return float(np.mean([metrics.dsb_score(count) for count in counts]))


def changed(samples: list[Sample], look, settings: params.Params) -> list[Sample]:
    """Return the samples as another microscope might have seen them; the truth stays as it is."""
    found = []
    with archives.open_archive(layout.TRAIN_ARCHIVE) as zipped:
        for number, sample in enumerate(samples):
            rgb = to_rgb(archives.read_image(zipped, archives.image_member(sample.image_id)))
            pixels = look(rgb.astype(np.float32) / 255, np.random.default_rng(number))
            image = normalize(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8), settings.preprocess)
            found.append(ArraySample(sample.image_id, sample.split, sample.image_type, image, sample.labels))
    return found


if __name__ == "__main__":
    main()
