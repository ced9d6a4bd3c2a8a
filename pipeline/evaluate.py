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
from nuclei_unet.network import model_file, runtime
from nuclei_unet.prediction.instances import otsu_nuclei
from nuclei_unet.prediction.predictor import Predictor
from pipeline import params, stage
from pipeline.dataset import processed as dataset
from pipeline.params import EvaluateParams
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
    with stage.fresh_folder(PREDICTIONS) as folder:
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


def score(
    sample: dataset.Sample | dataset.StoredSample, predictor: Predictor, settings: EvaluateParams
) -> tuple[np.ndarray, Score]:
    """Predict one image's label image, and count."""
    image, truth = sample.image, sample.labels
    predicted = predictor.labels(image, truth.shape)
    otsu = dataset.resize_labels(otsu_nuclei(image, settings), truth.shape)
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


def row(item: Score) -> dict:
    """Return one image's row of per_image.csv."""
    otsu = metrics.pixel_scores(item.otsu_pixels)
    height, width = item.shape
    return {
        "image_id": item.image_id,
        "split": item.split,
        "kind": item.kind,
        "height": height,
        "width": width,
        "nuclei": item.instances.n_truth,
        "predicted_nuclei": item.instances.n_predicted,
        **metrics.pixel_scores(item.pixels),
        "dsb_score": metrics.dsb_score(item.instances),
        **{f"ap{t:.0f}": metrics.average_precision(item.instances, t / 100) for t in (50, 75, 90)},
        "pq": metrics.panoptic_quality(item.instances),
        "count_error": metrics.count_error(item.instances),
        "otsu_iou": otsu["iou"],
        "otsu_dsb_score": metrics.dsb_score(item.otsu_instances),
    }


def summarise(items: list[Score]) -> dict:
    """Return the scores of one split: means over images, but `pixel_pooled`, ap50, ap75, ap90 and pq over all pixels
    or nuclei together. dsb_score_low ... dsb_score_high is the 95% bootstrap interval of dsb_score.
    """
    pixel = pd.DataFrame([metrics.pixel_scores(item.pixels) for item in items]).mean()
    nuclei = metrics.pooled(item.instances for item in items)
    otsu = metrics.pooled(item.otsu_instances for item in items)
    all_pixels = sum((item.pixels for item in items), metrics.PixelCounts(0, 0, 0))
    dsb_scores = [metrics.dsb_score(item.instances) for item in items]
    low, high = metrics.bootstrap_interval(dsb_scores)
    summary = {
        "n_images": len(items),
        "instance": {
            "dsb_score": np.mean(dsb_scores),
            "dsb_score_low": low,
            "dsb_score_high": high,
            "ap50": metrics.average_precision(nuclei, 0.5),
            "ap75": metrics.average_precision(nuclei, 0.75),
            "ap90": metrics.average_precision(nuclei, 0.9),
            "pq": metrics.panoptic_quality(nuclei),
            "count_error": np.mean([metrics.count_error(item.instances) for item in items]),
        },
        "pixel": pixel.to_dict(),
        "pixel_pooled": metrics.pixel_scores(all_pixels),
        "otsu": {
            "iou": np.mean([metrics.pixel_scores(item.otsu_pixels)["iou"] for item in items]),
            "dsb_score": np.mean([metrics.dsb_score(item.otsu_instances) for item in items]),
            "ap50": metrics.average_precision(otsu, 0.5),
        },
    }
    # Six digits say all that 65 images can, and read well in a diff.
    return {k: {n: round(float(x), 6) for n, x in v.items()} if isinstance(v, dict) else v for k, v in summary.items()}


def by_kind(images: pd.DataFrame) -> pd.DataFrame:
    """Return the means over images of each split and kind."""
    columns = ["iou", "dice", "dsb_score", "ap50", "otsu_iou", "otsu_dsb_score"]
    groups = images.groupby(["split", "kind"], sort=True)
    table = groups[columns].mean()
    table.insert(0, "n_images", groups.size())
    # Validation first: it is what choices are made on.
    return table.reset_index().sort_values(["split", "kind"], ascending=[False, True], ignore_index=True)


def ap_by_threshold(scores: dict[str, list[Score]]) -> pd.DataFrame:
    """Return the pooled average precision at each IoU threshold: one row a threshold, one column a curve."""
    curves = {}
    for split, items in scores.items():
        curves[f"{split}_unet"] = metrics.pooled(item.instances for item in items)
        curves[f"{split}_otsu"] = metrics.pooled(item.otsu_instances for item in items)
    return pd.DataFrame(
        {"iou_threshold": threshold}
        | {name: metrics.average_precision(counts, threshold) for name, counts in curves.items()}
        for threshold in metrics.IOU_THRESHOLDS
    )


def write_tables(summary: dict, images: pd.DataFrame, kinds: pd.DataFrame, precision: pd.DataFrame) -> None:
    """Write reports/scores.json, metrics.json and the three CSV files."""
    for name, values in (("scores", summary), ("metrics", main_scores(summary))):
        with stage.fresh_file(REPORTS / f"{name}.json") as path:
            path.write_text(json.dumps(values, indent=2) + "\n")
    for name, table in (("per_image", images), ("by_kind", kinds), ("ap_by_threshold", precision)):
        with stage.fresh_file(REPORTS / f"{name}.csv") as path:
            table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def main_scores(summary: dict) -> dict:
    """Return the few scores by which people compare two branches."""
    return {
        split: {
            "dsb_score": scores["instance"]["dsb_score"],
            "ap50": scores["instance"]["ap50"],
            "iou": scores["pixel"]["iou"],
        }
        for split, scores in summary.items()
    }


def flat_metrics(summary: dict) -> dict[str, float]:
    """Return {'test/instance/dsb_score': ...}, the names that MLflow shows."""
    return {
        f"{split}/{group}/{name}": value
        for split, groups in summary.items()
        for group, values in groups.items()
        if isinstance(values, dict)
        for name, value in values.items()
    }


def text_table(summary: dict) -> str:
    """Return the main scores as a small table for the terminal; dsb_score with its 95% interval."""
    lines = [f"{'':12}{'images':>8}{'IoU':>8}{'dsb_score':>23}{'AP50':>8}{'Otsu IoU':>10}{'Otsu dsb_score':>16}"]
    for split, scores in summary.items():
        pixel, instance, otsu = scores["pixel"], scores["instance"], scores["otsu"]
        interval = f"{instance['dsb_score']:.3f} ({instance['dsb_score_low']:.3f}-{instance['dsb_score_high']:.3f})"
        lines.append(
            f"{split:12}{scores['n_images']:8d}{pixel['iou']:8.3f}{interval:>23}{instance['ap50']:8.3f}"
            f"{otsu['iou']:10.3f}{otsu['dsb_score']:16.3f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    stage.run(main)
