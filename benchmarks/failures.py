"""What goes wrong with the nuclei of each image type: the numbers in the model card.

    python -m benchmarks.failures

Reads what `dvc repro` wrote: data/processed/, data/predictions/, data/raw/, reports/. Writes
benchmarks/results/failures.md and docs/failures.png: the worst test image of each image type by its dsb_score.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import save_table
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
    pairs = []
    for sample in (sample for split in layout.SCORED_SPLITS for sample in processed.read_split(split)):
        predicted = processed.read_labels(existing(layout.PREDICTIONS / f"{sample.image_id}.png", "evaluate"))
        pairs.append((sample.split, sample.image_type, sample.labels, predicted))
    save_table(
        RESULT,
        "True nuclei: IoU above 0.5 with a prediction (correct), or not (missed, split, merged); predictions that are "
        "no nucleus (false). Area: of a correct nucleus as predicted, divided by the true one, median.",
        outcomes(pairs).set_index("images"),
    )


def worst_by_type(per_image: pd.DataFrame) -> pd.DataFrame:
    """Return the row in per_image.csv of the worst test image of each type, the most common type first."""
    test = per_image[per_image.split == "test"].sort_values(["dsb_score", "image_id"])
    worst = test.groupby("image_type", sort=False).head(1)
    images = worst.image_type.map(test.groupby("image_type").size())
    return worst.assign(images=images).sort_values(["images", "image_type"], ascending=[False, True])


def by_type(images: list[tuple]) -> Iterator[tuple[str, list[tuple]]]:
    """Yield all images, and those of each type; each image is a tuple whose first part is its type."""
    yield "all", images
    for image_type in sorted({image[0] for image in images}):
        yield image_type, [image for image in images if image[0] == image_type]


def outcomes(pairs: list[tuple[str, str, np.ndarray, np.ndarray]]) -> pd.DataFrame:
    """Return a row a split and type, and one a split; `pairs` are (split, image type, truth, predicted) of images."""
    rows = []
    for split in dict.fromkeys(split for split, *_ in pairs):
        for name, images in by_type([image for of, *image in pairs if of == split]):
            counts, ratios = np.zeros(len(Outcome) + 1, int), []
            for _, truth, predicted in images:
                of_truth, of_predicted = errors(truth, predicted)
                counts += np.bincount(of_truth, minlength=counts.size)
                counts[Outcome.FALSE] += (of_predicted == Outcome.FALSE).sum()
                shared = overlaps(truth, predicted).of_nuclei()
                areas = shared.predicted_areas[shared.predicted] / shared.true_areas[shared.true]
                ratios.append(areas[shared.ious() > 0.5])
            true = counts[list(OF_TRUTH)].sum()
            shares = {outcome.name.lower(): f"{counts[outcome] / true:.1%}" for outcome in (*OF_TRUTH, Outcome.FALSE)}
            area = {"area": f"{np.median(np.concatenate(ratios)):.2f}"}
            rows.append({"images": split, "image type": name, "nuclei": true} | shares | area)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    stage.run(main)
