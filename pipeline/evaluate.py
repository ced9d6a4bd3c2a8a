"""DVC stage: score the trained U-Net on the validation images and on the official test images, at native size.

    python -m pipeline.evaluate

Reads models/trained.keras, data/processed/ and the `evaluate` section of params.yaml. Writes
  models/model.keras            the trained network with these settings in its recipe: the model to use and to share
  data/predictions/<id>.png     predicted label images, uint16
  reports/scores.json           all scores of each split
  reports/metrics.json          the main ones, which `dvc metrics diff` and `dvc exp show` compare
  reports/per_image.csv         one row per image
  reports/by_kind.csv           means by kind of image
  reports/ap_by_threshold.csv   pooled average precision over IoU thresholds
"""

import json
import time
from contextlib import ExitStack

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet.files import fresh_file, fresh_folder
from nuclei_unet.labels import resize_labels
from nuclei_unet.network import model_file, runtime
from nuclei_unet.prediction.otsu import otsu_nuclei
from nuclei_unet.prediction.segmenter import Segmenter
from nuclei_unet.sample import Sample
from nuclei_unet.scores import count
from pipeline import layout, params, stage
from pipeline.dataset import processed
from pipeline.report import scores
from pipeline.tracking import mirror


def main() -> None:
    """Write models/model.keras, data/predictions/ and the tables in reports/."""
    settings = params.load()
    runtime.configure(settings.train)
    segmenter = Segmenter.load(layout.TRAINED, predict=settings.evaluate, precision=settings.train.precision)
    started = time.monotonic()
    counted: dict[str, list[scores.ImageCounts]] = {}
    with fresh_file(layout.MODEL) as model, fresh_folder(layout.PREDICTIONS) as folder:
        model_file.copy_with_recipe(layout.TRAINED, model, segmenter.recipe)
        for split in layout.SCORED_SPLITS:
            samples = processed.read_split(split)
            counted[split] = []
            for sample in tqdm(samples, split, unit="image", disable=None):
                predicted, counts = score(sample, segmenter)
                processed.write_labels(folder / f"{sample.image_id}.png", predicted)
                counted[split].append(counts)
    summary = {split: scores.summarise(items) for split, items in counted.items()}
    write_tables(summary, counted)
    seconds = time.monotonic() - started
    mirror.log_stage(settings, scores.flat_metrics(summary), layout.TABLES, "evaluate", seconds)
    print(scores.text_table(summary))


def score(sample: Sample, segmenter: Segmenter) -> tuple[np.ndarray, scores.ImageCounts]:
    """Predict the label image of one image, which is already normalized, and count."""
    image, truth = sample.image, sample.labels
    predicted = segmenter.predictor.labels(image, truth.shape)
    otsu = resize_labels(otsu_nuclei(image, segmenter.recipe.predict), truth.shape)
    counts = scores.ImageCounts(
        sample.image_id,
        sample.split,
        sample.kind,
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
            (layout.BY_KIND, scores.by_kind(images)),
            (layout.AP_BY_THRESHOLD, scores.ap_by_threshold(counted)),
        ):
            table.to_csv(files.enter_context(fresh_file(path)), index=False, float_format="%.6g", lineterminator="\n")


if __name__ == "__main__":
    stage.run(main)
