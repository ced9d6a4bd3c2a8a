"""DVC stage: score the trained U-Net on the validation images and on the official test images, at native size.

    python -m pipeline.evaluate

Reads models/trained.keras, data/processed/ and the `evaluate` section of params.yaml. Writes
  models/model.keras            the trained network with these settings in its recipe: the model to use and to share
  data/predictions/<id>.png     predicted label images, uint16
  reports/scores.json           all scores of each split
  reports/metrics.json          the main ones, which `dvc metrics diff` and `dvc exp show` compare
  reports/per_image.csv         one row per image
  reports/by_type.csv           means by image type
  reports/ap_by_threshold.csv   pooled average precision over IoU thresholds
"""

import functools
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet import cluster
from nuclei_unet.errors import InputError
from nuclei_unet.evaluation.scores import count
from nuclei_unet.files import fresh_file, fresh_folder
from nuclei_unet.labels import resize_labels
from nuclei_unet.prediction.otsu import otsu_nuclei
from nuclei_unet.prediction.segmenter import Segmenter
from nuclei_unet.sample import Sample
from nuclei_unet.settings import PredictSettings, TrainSettings
from pipeline import layout, params, stage
from pipeline.dataset import processed
from pipeline.report import scores
from pipeline.tracking import mirror


@dataclass(frozen=True)
class Work:
    """What is the same for all images; paths are absolute, for workers on other machines."""

    model: Path
    folder: Path
    train: TrainSettings
    evaluate: PredictSettings


def main() -> None:
    """Write models/model.keras, data/predictions/ and the tables in reports/."""
    from nuclei_unet.network import keras_file

    settings = params.load()
    started = time.monotonic()
    counted: dict[str, list[scores.ImageCounts]] = {}
    scheduler = cluster.address(settings.run.scheduler)
    with (
        fresh_file(layout.MODEL) as model,
        fresh_folder(layout.PREDICTIONS) as folder,
        cluster.open_pool(scheduler=scheduler) as pool,
    ):
        work = Work(layout.TRAINED.absolute(), folder.absolute(), settings.train, settings.evaluate)
        recipe = keras_file.read_recipe(layout.TRAINED).model_copy(update={"predict": settings.evaluate})
        keras_file.copy_with_recipe(layout.TRAINED, model, recipe)
        for split in layout.SCORED_SPLITS:
            samples = processed.read_split(split, layout.PROCESSED.absolute())
            results = cluster.in_order(pool.run(score_image, samples, work))
            counted[split] = list(tqdm(results, split, len(samples), unit="image", disable=None))
            for sample, result in zip(samples, counted[split], strict=True):
                if isinstance(result, cluster.Lost):
                    raise InputError(f"image {sample.image_id}: {result.reason}")
    summary = {split: scores.summarise(items) for split, items in counted.items()}
    write_tables(summary, counted)
    seconds = time.monotonic() - started
    mirror.log_stage(settings, scores.flat_metrics(summary), layout.TABLES, "evaluate", seconds)
    print(scores.text_table(summary))


def score_image(sample: Sample, work: Work) -> scores.ImageCounts:
    """Predict the label image of one image, write it, and count."""
    cluster.check_seen(work.folder)
    segmenter = _segmenter(work.model, work.model.stat().st_mtime_ns, work.train, work.evaluate)
    predicted, counts = score(sample, segmenter)
    processed.write_labels(work.folder / f"{sample.image_id}.png", predicted)
    return counts


@functools.lru_cache(maxsize=1)  # a process loads a model once, not once an image
def _segmenter(model: Path, changed: int, train: TrainSettings, evaluate: PredictSettings) -> Segmenter:
    from nuclei_unet.network import runtime

    try:
        runtime.configure(train)
    except RuntimeError:
        raise InputError(
            "a worker of the cluster has run TensorFlow with other train.threads before; start the workers anew"
        ) from None
    return Segmenter.load(model, predict=evaluate, precision=train.precision)


def score(sample: Sample, segmenter: Segmenter) -> tuple[np.ndarray, scores.ImageCounts]:
    """Predict the label image of one image, which is already normalized, and count."""
    image, truth = sample.image, sample.labels
    predicted = segmenter.predictor.labels(image, truth.shape)
    otsu = resize_labels(otsu_nuclei(image, segmenter.recipe.predict), truth.shape)
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
