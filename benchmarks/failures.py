"""What goes wrong with the nuclei of each image type, and how large the nuclei are: the numbers in the model card.

    python -m benchmarks.failures

Reads what `dvc repro` wrote: data/processed/, data/predictions/, data/raw/, reports/. Writes
benchmarks/results/failures.md and docs/failures.png: the worst test image of each image_type by its dsb_score.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from nuclei_unet.evaluation.metrics import overlaps
from nuclei_unet.evaluation.outcomes import Outcome, errors
from pipeline import layout, stage
from pipeline.dataset import processed
from pipeline.report import pictures
from pipeline.report.results import existing, read_example, read_results
from pipeline.report.style import write_figure

RESULT = Path("benchmarks/results/failures.md")
PICTURE = Path("docs/failures.png")
DPI = 90
OF_TRUTH = (Outcome.CORRECT, Outcome.MISSED, Outcome.SPLIT, Outcome.MERGED)


def main() -> None:
    """Write tables and picture."""
    worst = worst_by_type(read_results().per_image)
    write_figure(PICTURE, pictures.error_rows, [read_example(row) for row in worst.itertuples()], DPI)
    pairs = [
        (sample.split, sample.image_type, sample.labels, processed.read_labels(existing(prediction, "evaluate")))
        for split in layout.SCORED_SPLITS
        for sample in processed.read_split(split)
        for prediction in [layout.PREDICTIONS / f"{sample.image_id}.png"]
    ]
    sizes = diameters([(sample.image_type, sample.labels) for sample in processed.read_split("train")])
    text = (
        "True nuclei: IoU above 0.5 with a prediction (correct), or not (missed, split, merged); predictions that are "
        "no nucleus (false). Area: of a correct nucleus as predicted, divided by the true one, median.\n\n"
        f"{outcomes(pairs).to_markdown(index=False)}\n\n"
        "Diameters of the training nuclei (of circles with their areas), px, at percentiles:\n\n"
        f"{sizes.to_markdown(index=False)}\n"
    )
    RESULT.write_text(text, encoding="utf-8")
    print(text)


def worst_by_type(per_image: pd.DataFrame) -> pd.DataFrame:
    """Return the row in per_image.csv of the worst test image of each image_type, the most common image_type first."""
    test = per_image[per_image.split == "test"].sort_values(["dsb_score", "image_id"])
    worst = test.groupby("image_type", sort=False).head(1)
    images = worst.image_type.map(test.groupby("image_type").size())
    return worst.assign(images=images).sort_values(["images", "image_type"], ascending=[False, True])


def outcomes(pairs: list[tuple[str, str, np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Return a row a split and type, and one a split; `pairs` are (split, image type, truth, predicted) of images."""
    rows = []
    for split in dict.fromkeys(split for split, *_ in pairs):
        images = [part for part in pairs if part[0] == split]
        image_types = sorted({image_type for _, image_type, *_ in images})
        for name, chosen in [("all", image_types), *((image_type, [image_type]) for image_type in image_types)]:
            counts, ratios = np.zeros(len(Outcome) + 1, int), []
            for _, image_type, truth, predicted in images:
                if image_type not in chosen:
                    continue
                of_truth, of_predicted = errors(truth, predicted)
                counts += np.bincount(of_truth, minlength=counts.size)
                counts[Outcome.FALSE] += (of_predicted == Outcome.FALSE).sum()
                found = overlaps(truth, predicted).of_nuclei()
                areas = found.predicted_areas[found.predicted] / found.true_areas[found.true]
                ratios.append(areas[found.ious() > 0.5])
            true = counts[list(OF_TRUTH)].sum()
            rows.append(
                {"images": split, "image_type": name, "nuclei": true}
                | {outcome.name.lower(): f"{counts[outcome] / true:.1%}" for outcome in OF_TRUTH}
                | {"false": f"{counts[Outcome.FALSE] / true:.1%}", "area": f"{np.median(np.concatenate(ratios)):.2f}"}
            )
    return pd.DataFrame(rows)


def diameters(images: list[tuple[str, np.ndarray]]) -> pd.DataFrame:
    """Return one row a image_type, and one of all; `images` are (image_type, label image)."""
    rows = []
    image_types = sorted({image_type for image_type, _ in images})
    for name, chosen in [("all", image_types), *((image_type, [image_type]) for image_type in image_types)]:
        areas = [np.bincount(labels.ravel())[1:] for image_type, labels in images if image_type in chosen]
        sizes = 2 * np.sqrt(np.concatenate(areas) / np.pi)
        low, middle, high = np.percentile(sizes[sizes > 0], (1, 50, 99))
        rows.append({"image_type": name, "images": len(areas), "nuclei": (sizes > 0).sum(), "1%": f"{low:.0f}",
                     "50%": f"{middle:.0f}", "99%": f"{high:.0f}"})  # fmt: skip
    return pd.DataFrame(rows)


if __name__ == "__main__":
    stage.run(main)
