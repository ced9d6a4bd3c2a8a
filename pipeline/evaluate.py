"""DVC stage: score the trained U-Net on the validation images and on the official test images, at native size.

    python -m pipeline.evaluate

Reads models/model.keras, data/processed/ and the `evaluate` section of params.yaml. Writes
  data/predictions/<id>.png     predicted label images, uint16
  reports/scores.json           all scores of each split
  reports/metrics.json          the main ones, which `dvc metrics diff` and `dvc exp show` compare
  reports/per_image.csv         one row an image
  reports/by_kind.csv           means by kind of image
  reports/ap_by_threshold.csv   pooled average precision over IoU thresholds
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet import metrics
from nuclei_unet.files import fresh_file, fresh_folder
from nuclei_unet.labels import resize_labels
from nuclei_unet.network import model_file, runtime
from nuclei_unet.prediction.otsu import otsu_nuclei
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.sample import Sample
from nuclei_unet.settings import EvaluateParams
from pipeline import params, stage
from pipeline.dataset import processed as dataset
from pipeline.report.scores import ap_by_threshold, by_kind, flat_metrics, main_scores, row, summarise, text_table
from pipeline.tracking import run as tracking

PREDICTIONS = Path("data/predictions")
REPORTS = Path("reports")
TABLES = ("scores.json", "metrics.json", "per_image.csv", "by_kind.csv", "ap_by_threshold.csv")
# What MLflow gets of the tables, and of what preprocess found.
FILES = tuple(REPORTS / name for name in (*TABLES, "data_audit.json"))
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Score:
    """The counts of one image, of the U-Net and of Otsu's threshold: all that scores are made of."""

    image_id: str
    split: str
    kind: str
    shape: tuple[int, int]
    pixels: metrics.PixelCounts
    instances: metrics.InstanceCounts
    otsu_pixels: metrics.PixelCounts
    otsu_instances: metrics.InstanceCounts


def main() -> None:
    """Write data/predictions/ and the tables in reports/."""
    settings = params.load()
    runtime.configure(settings.train)
    predictor = Predictor(model_file.load(), settings.train.model, settings.evaluate)
    started = time.monotonic()
    scores: dict[str, list[Score]] = {}
    with fresh_folder(PREDICTIONS) as folder:
        for split in SPLITS:
            samples = dataset.read_split(split)
            scores[split] = []
            for sample in tqdm(samples, split, unit="image", disable=None):
                predicted, counts = score(sample, predictor, settings.evaluate)
                dataset.write_labels(folder / f"{sample.image_id}.png", predicted)
                scores[split].append(counts)
    summary = {split: summarise(items) for split, items in scores.items()}
    images = pd.DataFrame([row(item) for items in scores.values() for item in items])
    write_tables(summary, images, by_kind(images), ap_by_threshold(scores))
    tracking.log_stage(settings, flat_metrics(summary), FILES, "evaluate", time.monotonic() - started)
    print(text_table(summary))


def score(sample: Sample, predictor: Predictor, settings: EvaluateParams) -> tuple[np.ndarray, Score]:
    """Predict one image's label image, and count."""
    image, truth = sample.image, sample.labels
    predicted = predictor.labels(image, truth.shape)
    otsu = resize_labels(otsu_nuclei(image, settings), truth.shape)
    return predicted, Score(
        sample.image_id,
        sample.split,
        sample.kind,
        truth.shape,
        metrics.pixel_counts(truth, predicted),
        metrics.instance_counts(truth, predicted),
        metrics.pixel_counts(truth, otsu),
        metrics.instance_counts(truth, otsu),
    )


def write_tables(summary: dict, images: pd.DataFrame, kinds: pd.DataFrame, precision: pd.DataFrame) -> None:
    """Write reports/scores.json, metrics.json and the three CSV files."""
    for name, values in (("scores", summary), ("metrics", main_scores(summary))):
        with fresh_file(REPORTS / f"{name}.json") as path:
            path.write_text(json.dumps(values, indent=2) + "\n")
    for name, table in (("per_image", images), ("by_kind", kinds), ("ap_by_threshold", precision)):
        with fresh_file(REPORTS / f"{name}.csv") as path:
            table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    stage.run(main)
