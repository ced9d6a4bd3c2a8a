"""DVC stage: make the model that ships, and score it on the validation images and the official test images.

    python -m pipeline.evaluate

Reads models/trained.keras, data/processed/ and the `evaluate` section of params.yaml. Writes
  models/model.onnx             the network in eight bits, with settings and scores: the model to use and to share
  data/predictions/<id>.png     what exactly this file finds: label images at native size, uint16
  reports/scores.json           all scores of each split
  reports/metrics.json          the main ones, which `dvc metrics diff` and `dvc exp show` compare
  reports/per_image.csv         one row per image
  reports/by_type.csv           means by image type
  reports/ap_by_threshold.csv   pooled average precision over IoU thresholds
"""

import functools
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet.batch import pool as workers
from nuclei_unet.errors import InputError
from nuclei_unet.evaluation.scores import GROUPS, count
from nuclei_unet.files import file_digest, fresh_file, fresh_folder
from nuclei_unet.images import center_crop
from nuclei_unet.labels import at_one_size, resize_labels
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction.otsu import otsu_nuclei
from nuclei_unet.prediction.segmenter import Segmenter
from nuclei_unet.sample import Sample
from nuclei_unet.settings import PredictSettings
from pipeline import layout, params, stage
from pipeline.dataset import processed
from pipeline.report import scores
from pipeline.tracking import sync

LICENCE = "MIT; trained on BBBC038v1, which is in the public domain (CC0 1.0)"
# Training images whose activations decide how the network is rounded to eight bits, and the side of what is taken, px.
CALIBRATION_IMAGES, CALIBRATION_SIDE = 48, 256


@dataclass(frozen=True)
class Evaluation:
    """What is the same for all images; paths are absolute, for workers on other machines."""

    model: Path
    folder: Path


def main() -> None:
    """Write models/model.onnx, data/predictions/ and the tables in reports/."""
    from nuclei_unet.network import onnx_file

    settings = params.load()
    started = time.monotonic()
    counted: dict[str, list[scores.ImageCounts]] = {}
    with fresh_file(layout.MODEL) as model, fresh_folder(layout.PREDICTIONS) as folder:
        metadata = export(model, settings.evaluate)
        evaluation = Evaluation(model.absolute(), folder.absolute())
        with workers.open_pool(scheduler=workers.address(settings.run.scheduler)) as pool:
            for split in layout.SCORED_SPLITS:
                samples = processed.read_split(split, layout.PROCESSED.absolute())
                results = workers.in_order(pool.run(score_image, samples, evaluation))
                counted[split] = list(tqdm(results, split, len(samples), unit="image", disable=None))
                for sample, result in zip(samples, counted[split], strict=True):
                    if isinstance(result, workers.Lost):
                        raise InputError(f"image {sample.image_id}: {result.reason}")
        summary = {split: scores.summarise(items) for split, items in counted.items()}
        known = {
            split: {"n_images": groups["n_images"], **{group: groups[group] for group in GROUPS}}
            for split, groups in summary.items()
        }
        onnx_file.copy(model, model, metadata.but(scores=known))
    write_tables(summary, counted)
    sync.after("evaluate", settings, time.monotonic() - started)
    print(scores.text_table(summary))


def export(path: Path, predict: PredictSettings) -> Metadata:
    """Write the trained network as ONNX file, in eight bits; return its metadata."""
    from nuclei_unet.network import keras_file, onnx_file

    trained, metadata = keras_file.load(layout.TRAINED)
    training = processed.read_split("train")
    metadata = metadata.but(predict=predict, licence=LICENCE, source=file_digest(layout.TRAINED))
    return onnx_file.save(trained, path, metadata, calibration_images(training, metadata.diameter))


def calibration_images(training: Sequence[Sample], diameter: float | None) -> list[np.ndarray]:
    """Return center crops of some training images as the network sees them, spread evenly over all."""
    chosen = np.unique(np.linspace(0, len(training) - 1, CALIBRATION_IMAGES).astype(int))
    images = (at_one_size(training[number].image, training[number].labels, diameter)[0] for number in chosen)
    return [center_crop(image, CALIBRATION_SIDE) for image in images]


def score_image(sample: Sample, evaluation: Evaluation) -> scores.ImageCounts:
    """Predict the label image of one image, write it, and count."""
    workers.check_seen(evaluation.folder)
    predicted, counts = score(sample, _segmenter(evaluation.model, evaluation.model.stat().st_mtime_ns))
    processed.write_labels(evaluation.folder / f"{sample.image_id}.png", predicted)
    return counts


@functools.lru_cache(maxsize=1)  # a process loads a model once, not once an image
def _segmenter(model: Path, changed: int) -> Segmenter:
    # On the CPU, whose integers add up to the same everywhere.
    return Segmenter.load(model, threads=workers.threads(), gpu=False)


def score(sample: Sample, segmenter: Segmenter) -> tuple[np.ndarray, scores.ImageCounts]:
    """Predict the label image of one image, which is already normalized, and count."""
    image, truth = sample.image, sample.labels
    predicted = segmenter.predictor.labels(image, truth.shape)
    otsu = resize_labels(otsu_nuclei(image), truth.shape)
    counts = scores.ImageCounts(
        sample.image_id,
        sample.split,
        sample.image_type,
        truth.shape,
        unet=count(truth, predicted),
        otsu=count(truth, otsu),
    )
    return predicted, counts


def write_tables(summary: dict, counted: dict[str, list[scores.ImageCounts]]) -> None:
    """Write scores.json, metrics.json and the three CSV files in reports/; all of them, or none."""
    images = pd.DataFrame([scores.row(item) for items in counted.values() for item in items])
    with ExitStack() as files:
        for path, values in ((layout.SCORES_FILE, summary), (layout.MAIN_SCORES, scores.main_scores(summary))):
            files.enter_context(fresh_file(path)).write_text(json.dumps(values, indent=2) + "\n")
        for path, table in (
            (layout.PER_IMAGE, images),
            (layout.BY_TYPE, scores.by_type(images)),
            (layout.AP_BY_THRESHOLD, scores.ap_by_threshold(counted)),
        ):
            table.to_csv(files.enter_context(fresh_file(path)), index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    # Under its own name, by which workers of a cluster find its functions.
    from pipeline import evaluate

    stage.run(evaluate.main, tensorflow=True)
