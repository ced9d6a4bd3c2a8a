"""StarDist, Otsu, the tutorial and our U-Net on the same images: scores by two implementations, and speed.

    python3 -m venv .venv-peers && .venv-peers/bin/pip install -e '.[peers]'
    TF_USE_LEGACY_KERAS=1 .venv-peers/bin/python -m benchmarks.peers --minutes 26

StarDist runs on Keras 2, so it needs an environment of its own. It is trained on the images of the training split as
our network sees them (one grey channel, light backgrounds inverted), with the settings and augmentation of its example
for this data set, and is stopped after `--minutes`. Its thresholds are optimised on the validation images by its own
function. The U-Net is models/model.keras. The tutorial's label images are those that `benchmarks.tutorial` wrote to
data/tutorial/ (left out if missing). All are scored on the validation images and on stage1_test by
`nuclei_unet.evaluation.metrics` and by `stardist.matching`, which must agree. Needs `dvc repro evaluate`. Writes
benchmarks/results/peers.md.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet.evaluation import metrics
from nuclei_unet.network import runtime
from nuclei_unet.prediction.otsu import otsu_nuclei
from nuclei_unet.prediction.segmenter import Segmenter
from nuclei_unet.sample import Sample
from pipeline import layout, params
from pipeline.dataset import processed
from pipeline.machine import describe

RESULT = Path("benchmarks/results/peers.md")
TUTORIAL = Path("data/tutorial")
STARDIST = Path("models/stardist")
TRAINED = STARDIST / "minutes"
# Added to StarDist's thresholds: it counts IoU >= t, we count IoU > t. No IoU of two nuclei of this data set is between
# t and t + 1e-6.
STRICTLY = 1e-6


def main() -> None:
    """Write the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=26, help="of training for StarDist; 0: use the one trained before"
    )
    minutes = parser.parse_args().minutes
    settings = params.load()
    runtime.configure(settings.train)
    images = {split: processed.read_split(split) for split in layout.SPLITS}

    load = partial(Segmenter.load, layout.MODEL, precision=settings.train.precision)
    finders: dict[str, Callable[[Sample], np.ndarray]] = {
        "Otsu and watershed": lambda s: otsu_nuclei(s.image, settings.evaluate),
        "StarDist": stardist(images["train"], images["validation"], minutes),
        "U-Net, fast (default)": labels_of(load(predict=settings.evaluate.with_views("fast"))),
        "U-Net, thorough": labels_of(load(predict=settings.evaluate.with_views("thorough"))),
    }
    if TUTORIAL.is_dir():
        finders = {"tutorial": lambda s: processed.read_labels(TUTORIAL / f"{s.image_id}.png")} | finders

    rows, speeds, difference = [], [], 0.0
    for name, find in finders.items():
        row = {"method": name}
        for split in layout.SCORED_SPLITS:
            find(images[split][0])  # traced before the clock starts
            started = time.perf_counter()
            found = [find(sample) for sample in tqdm(images[split], f"{name}, {split}", disable=None)]
            seconds = time.perf_counter() - started
            truth = [sample.labels for sample in images[split]]
            scores, disagreement = score(truth, found)
            row |= {f"{split} {key}": value for key, value in scores.items()}
            difference = max(difference, disagreement)
        # `truth` and `seconds` are those of stage1_test, the last split.
        megapixels = sum(labels.size for labels in truth) / 1e6
        rows.append(row)
        speeds.append({"method": name, "megapixels/s": megapixels / seconds})
    speed = pd.DataFrame(speeds).set_index("method").drop("tutorial", errors="ignore")
    speed["times StarDist"] = speed["megapixels/s"] / speed["megapixels/s"]["StarDist"]
    text = "\n".join(
        [
            describe("stardist"),
            "",
            f"StarDist trained for {TRAINED.read_text()} minutes.",
            "",
            pd.DataFrame(rows).set_index("method").to_markdown(floatfmt=".3f"),
            "",
            f"Largest difference between nuclei_unet.evaluation.metrics and stardist.matching: {difference:.1e}.",
            "",
            "Speed on the 65 test images, one after the other:",
            "",
            speed.to_markdown(floatfmt=".2f"),
        ]
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text + "\n")
    print(text)
    if difference > 1e-6:
        raise SystemExit("error: the two implementations of the scores disagree")


def labels_of(segmenter: Segmenter) -> Callable[[Sample], np.ndarray]:
    """Return a function from a sample to the U-Net's label image."""
    return lambda sample: segmenter.predictor.labels(sample.image, sample.labels.shape)


def stardist(training: list[Sample], validation: list[Sample], minutes: float) -> Callable[[Sample], np.ndarray]:
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

    if not minutes:
        model = StarDist2D(None, name=STARDIST.name, basedir=str(STARDIST.parent))
        return lambda sample: model.predict_instances(arrays([sample])[0][0])[0]
    config = Config2D(
        n_rays=32, grid=(2, 2), n_channel_in=1, train_batch_size=8, train_epochs=10**4, train_tensorboard=False
    )
    model = StarDist2D(config, name=STARDIST.name, basedir=str(STARDIST.parent))
    model.prepare_for_training()
    model.callbacks.append(StopAfter())
    x, y = arrays(training)
    x_validation, y_validation = arrays(validation)
    model.train(x, y, validation_data=(x_validation, y_validation), augmenter=augment)
    TRAINED.write_text(f"{minutes:g}")
    model.optimize_thresholds(x_validation, y_validation)
    return lambda sample: model.predict_instances(arrays([sample])[0][0])[0]


def arrays(samples: list[Sample]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return images, float32 (H, W) in 0 ... 1, and their label images."""
    images, labels = [], []
    for sample in samples:
        grey = sample.image if sample.image.ndim == 2 else sample.image.mean(axis=2)
        images.append((grey / 255).astype(np.float32))
        labels.append(sample.labels)
    return images, labels


def score(truth: list[np.ndarray], found: list[np.ndarray]) -> tuple[dict[str, float], float]:
    """Return the scores and by how much `stardist.matching` differs from them."""
    from stardist.matching import matching, matching_dataset

    counts = [metrics.instance_counts(t, f) for t, f in zip(truth, found, strict=True)]
    pooled = metrics.pooled(counts)
    scores = {
        "pixel IoU": np.mean(
            [metrics.pixel_scores(metrics.pixel_counts(t, f))["iou"] for t, f in zip(truth, found, strict=True)]
        ),
        "dsb_score": np.mean([metrics.dsb_score(c) for c in counts]),
        "AP50": metrics.average_precision(pooled, 0.5),
        "AP75": metrics.average_precision(pooled, 0.75),
    }
    thresholds = [t + STRICTLY for t in metrics.IOU_THRESHOLDS]
    theirs = [
        np.mean([m.accuracy for m in matching(t, f, thresh=thresholds)]) for t, f in zip(truth, found, strict=True)
    ]
    pooled_theirs = matching_dataset(truth, found, thresh=thresholds, show_progress=False)
    return scores, max(
        abs(float(np.mean(theirs)) - scores["dsb_score"]),
        *(
            abs(m.accuracy - metrics.average_precision(pooled, t))
            for m, t in zip(pooled_theirs, metrics.IOU_THRESHOLDS, strict=True)
        ),
    )


if __name__ == "__main__":
    main()
