"""Does it pay to choose the scale by the pixel size? Validation images, enlarged and shrunk, with and without it.

    python -m benchmarks.pixel_size

Each image is resized, as another objective would show it. Its pixel size is taken to be such that its median nucleus
is 8 micrometres wide. Prediction sees it as it is, or at the scale that `nuclei-unet predict` chooses by the pixel
size. One view, ONNX Runtime. Scores against the truth at the same size. Needs `dvc repro preprocess`. Writes
benchmarks/results/pixel_size.md.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet.evaluation import metrics
from nuclei_unet.images import resize
from nuclei_unet.measurements import diameters
from nuclei_unet.prediction import models
from nuclei_unet.prediction.scale import NUCLEUS, scale_for
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline import params
from pipeline.dataset import processed

RESULT = Path("benchmarks/results/pixel_size.md")
FACTORS = (0.25, 0.5, 1, 2, 4)
LARGEST = 1100  # px: larger images are left out, for time


def main() -> None:
    """Write the table as Markdown."""
    views = params.load().evaluate.with_views("fast")
    segmenter = Segmenter.load(models.PRETRAINED, predict=views, engine="onnx")
    # Every third image: of all kinds, and quick.
    samples = [sample for sample in processed.read_split("validation")[::3] if max(sample.image.shape) <= LARGEST]
    rows = []
    for factor in FACTORS:
        found: dict[str, list[float]] = {"as it is": [], "by the pixel size": []}
        scaled = 0
        for sample in tqdm(samples, f"x {factor}", unit="image", disable=None):
            size = [max(round(side * factor), 1) for side in sample.image.shape[:2]]
            if max(size) > 4 * LARGEST:
                continue
            image = resize(sample.image, size)
            truth = cv2.resize(sample.labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
            pixel_size = NUCLEUS / float(np.median(diameters(sample.labels))) / factor
            scale = scale_for(pixel_size, segmenter.card.diameters)
            scaled += scale != 1
            for name, chosen in (("as it is", 1.0), ("by the pixel size", scale)):
                labels = segmenter(image, scale=chosen)
                found[name].append(metrics.dsb_score(metrics.instance_counts(truth, labels)))
        means = {name: float(np.mean(values)) for name, values in found.items()}
        rows.append({"resized by": factor, "images": len(found["as it is"]), "scaled": scaled, **means})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows).to_markdown(index=False, floatfmt=("g", "g", "g", ".3f", ".3f"))
    RESULT.write_text(f"Mean dsb_score of validation images.\n\n{table}\n")
    print(table)


if __name__ == "__main__":
    main()
