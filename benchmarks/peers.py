"""StarDist, Otsu and our U-Net on the same images: scores by two implementations, and speed.

    python3 -m venv .venv-peers && .venv-peers/bin/pip install -e '.[peers]'
    TF_USE_LEGACY_KERAS=1 .venv-peers/bin/python -m benchmarks.peers --minutes 26

StarDist runs on Keras 2, so it needs an environment of its own. It is trained on the images of the training split as
our network sees them (one grey channel, light backgrounds inverted), with the settings and augmentation of its example
for this data set, and is stopped after `--minutes`. Its thresholds are optimised on the validation images by its own
function. The U-Net is models/model.onnx. All are scored on the validation images and on stage1_test by
`nuclei_unet.evaluation.metrics` and by `stardist.matching`, which must agree. Needs `dvc repro evaluate`. Writes
benchmarks/results/peers.md.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.measure import save_table
from nuclei_unet.evaluation import metrics
from nuclei_unet.prediction import models
from nuclei_unet.prediction.otsu import otsu_nuclei
from nuclei_unet.prediction.predictor import FAST, Predictor
from nuclei_unet.sample import Sample
from pipeline import layout, params
from pipeline.dataset import processed
from pipeline.machine import describe

RESULT = Path("benchmarks/results/peers.md")
STARDIST = Path("models/stardist")
TRAINED = STARDIST / "minutes"
# Added to StarDist's thresholds: it counts IoU >= t, we count IoU > t. No IoU of two nuclei of this data set is between
# t and t + 1e-6.
STRICTLY = 1e-6

Finder = Callable[[Sample], np.ndarray]


def main() -> None:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=26, help="of StarDist's training; 0: take the one of before")
    minutes = parser.parse_args().minutes
    evaluate = params.load().evaluate
    images = {split: processed.read_split(split) for split in layout.SPLITS}
    finders: dict[str, Finder] = {
        "Otsu and watershed": lambda sample: otsu_nuclei(sample.image),
        "StarDist": stardist(images["train"], images["validation"], minutes),
        "U-Net": unet(evaluate.augmentations),
        "U-Net, --fast": unet(FAST),
    }
    rows, speeds, difference = {}, {}, 0.0
    for name, find in finders.items():
        rows[name] = {}
        for split in layout.SCORED_SPLITS:
            find(images[split][0])  # warm before the clock starts
            started = time.perf_counter()
            predicted = [find(sample) for sample in tqdm(images[split], f"{name}, {split}", disable=None)]
            seconds = time.perf_counter() - started
            truth = [sample.labels for sample in images[split]]
            scores, disagreement = score(truth, predicted)
            rows[name] |= {f"{split} {key}": value for key, value in scores.items()}
            difference = max(difference, disagreement)
        # `truth` and `seconds` are those of stage1_test, the last split.
        speeds[name] = sum(labels.size for labels in truth) / 1e6 / seconds
    speed = pd.DataFrame({"megapixels/s": speeds})
    speed["times StarDist"] = speed["megapixels/s"] / speeds["StarDist"]
    save_table(
        RESULT,
        describe("stardist", "onnxruntime"),
        f"StarDist trained for {TRAINED.read_text()} minutes.",
        pd.DataFrame(rows).T,
        f"Largest difference between nuclei_unet.evaluation.metrics and stardist.matching: {difference:.1e}.",
        "Speed on the 65 test images, one after the other:",
        speed,
        digits=".3f",
    )
    if difference > 1e-6:
        raise SystemExit("error: the two implementations of the scores disagree")


def unet(augmentations: tuple) -> Finder:
    """Return a function from a sample to the U-Net's label image."""
    opened = models.load(layout.MODEL)
    predict = opened.metadata.predict.model_copy(update={"augmentations": augmentations})
    predictor = Predictor(opened.network, opened.metadata.but(predict=predict))
    return lambda sample: predictor.labels(sample.image, sample.labels.shape)


def stardist(training: list[Sample], validation: list[Sample], minutes: float) -> Finder:
    """Train StarDist and return a function from a sample to its label image."""
    import tensorflow as tf
    from stardist.models import Config2D, StarDist2D

    class StopAfter(tf.keras.callbacks.Callback):
        """Stop at the end of the epoch in which the time is over."""

        def on_train_begin(self, logs=None):
            self.end = time.monotonic() + 60 * minutes

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = time.monotonic() > self.end

    rng = np.random.default_rng(2018)

    def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turn, mirror and change brightness and noise, as StarDist's example does."""
        turns, mirrored = rng.integers(4), rng.integers(2)
        image, labels = (np.rot90(x[:, ::-1] if mirrored else x, turns) for x in (image, labels))
        image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
        return image + 0.02 * rng.uniform(0, 1) * rng.standard_normal(image.shape), labels

    settings = {"n_rays": 32, "grid": (2, 2), "n_channel_in": 1, "train_batch_size": 8, "train_tensorboard": False}
    config = Config2D(**settings, train_epochs=10**4) if minutes else None
    model = StarDist2D(config, name=STARDIST.name, basedir=str(STARDIST.parent))
    if minutes:
        model.prepare_for_training()
        model.callbacks.append(StopAfter())
        validation_data = arrays(validation)
        model.train(*arrays(training), validation_data=validation_data, augmenter=augment)
        TRAINED.write_text(f"{minutes:g}")
        model.optimize_thresholds(*validation_data)
    return lambda sample: model.predict_instances(arrays([sample])[0][0])[0]


def arrays(samples: list[Sample]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return images, float32 (H, W) in 0 ... 1, and their label images."""
    images = [sample.image for sample in samples]
    grey = [((image if image.ndim == 2 else image.mean(axis=2)) / 255).astype(np.float32) for image in images]
    return grey, [sample.labels for sample in samples]


def score(truth: list[np.ndarray], predicted: list[np.ndarray]) -> tuple[dict[str, float], float]:
    """Return the scores and by how much `stardist.matching` differs from them."""
    from stardist.matching import matching, matching_dataset

    pairs = list(zip(truth, predicted, strict=True))
    counts = [metrics.instance_counts(*pair) for pair in pairs]
    pooled = metrics.pooled(counts)
    scores = {
        "pixel IoU": np.mean([metrics.pixel_scores(metrics.pixel_counts(*pair))["iou"] for pair in pairs]),
        "dsb_score": np.mean([metrics.dsb_score(count) for count in counts]),
        "AP50": metrics.average_precision(pooled, 0.5),
        "AP75": metrics.average_precision(pooled, 0.75),
    }
    thresholds = [threshold + STRICTLY for threshold in metrics.IOU_THRESHOLDS]
    theirs = np.mean([[m.accuracy for m in matching(*pair, thresh=thresholds)] for pair in pairs])
    pooled_theirs = matching_dataset(truth, predicted, thresh=thresholds, show_progress=False)
    ours = [metrics.average_precision(pooled, threshold) for threshold in metrics.IOU_THRESHOLDS]
    differences = [abs(m.accuracy - our) for m, our in zip(pooled_theirs, ours, strict=True)]
    return scores, max(abs(float(theirs) - scores["dsb_score"]), *differences)


if __name__ == "__main__":
    main()
