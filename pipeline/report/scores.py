"""Scores."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from nuclei_unet import metrics


class Score(NamedTuple):
    """A row of the table of scores: its place in scores.json, its name, and what it means."""

    group: str
    key: str
    name: str
    meaning: str


SCORES = (
    Score("instance", "dsb_score", "DSB score", "Kaggle's score of the 2018 Data Science Bowl: of each image the mean "
          "of TP / (TP + FP + FN) over the IoU thresholds 0.50, 0.55 … 0.95, then the mean over the images."),
    Score("instance", "dsb_score_low", "DSB score, from", "The lower end of the DSB score's 95% interval, by drawing "
          "images again and again (bootstrap): how much the score hangs on which images there happen to be."),
    Score("instance", "dsb_score_high", "DSB score, to", "The upper end of that interval."),
    Score("instance", "ap50", "AP at IoU 0.50", "TP / (TP + FP + FN) with the nuclei of all images pooled; a predicted "
          "nucleus is a true positive if its IoU with a true one is above 0.50."),
    Score("instance", "ap75", "AP at IoU 0.75", "The same, with matches above 0.75: outlines have to fit closely."),
    Score("instance", "ap90", "AP at IoU 0.90", "The same, with matches above 0.90: close to pixel-perfect."),
    Score("instance", "pq", "Panoptic quality", "Sum of the IoUs of the matches above 0.50, divided by "
          "TP + FP/2 + FN/2: how many nuclei were found times how well they fit."),
    Score("instance", "count_error", "Count error", "|predicted − true| / true number of nuclei, mean over the images; "
          "lower is better."),
    Score("pixel", "iou", "Pixel IoU", "Nucleus pixels in both truth and prediction, divided by those in either; "
          "mean over the images."),
    Score("pixel", "dice", "Pixel Dice", "Twice the nucleus pixels in both, divided by the sum of those in each; "
          "mean over the images."),
    Score("pixel", "precision", "Pixel precision", "Share of the predicted nucleus pixels that are right."),
    Score("pixel", "recall", "Pixel recall", "Share of the true nucleus pixels that were found."),
    Score("pixel_pooled", "iou", "Pixel IoU, pooled", "The same as pixel IoU over the pixels of all images together: "
          "large images count for more."),
    Score("pixel_pooled", "dice", "Pixel Dice, pooled", "The same as pixel Dice over all pixels together."),
)  # fmt: skip


def score_rows(metrics: Mapping) -> list[tuple[str, list[float | None]]]:
    """Return (name, [U-Net, Otsu on validation, U-Net, Otsu on test]) of each of SCORES; None: not measured."""
    rows = []
    for score in SCORES:
        values = []
        for split in ("validation", "test"):
            otsu = None if score.group == "pixel_pooled" else metrics[split]["otsu"].get(score.key)
            values += [metrics[split][score.group][score.key], otsu]
        rows.append((score.name, values))
    return rows


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
