"""Do ONNX Runtime and TensorFlow find the same nuclei with the same model?

    python -m benchmarks.engines

Predicts the validation images with the pretrained model: by ONNX Runtime, by TensorFlow in float32 and in bfloat16.
Compares the label images with each other and with the truth. Needs `dvc repro preprocess`. Writes
benchmarks/results/engines.md.
"""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet.evaluation import metrics
from nuclei_unet.prediction import models
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline.dataset import processed
from pipeline.machine import describe

RESULT = Path("benchmarks/results/engines.md")
ENGINES = {
    "ONNX Runtime, float32": ("onnx", "float32"),
    "TensorFlow, float32": ("tensorflow", "float32"),
    "TensorFlow, bfloat16": ("tensorflow", "mixed_bfloat16"),
}


def main() -> None:
    """Write the tables as Markdown."""
    samples = processed.read_split("validation")
    found = {}
    for name, (engine, precision) in ENGINES.items():
        segmenter = Segmenter.load(models.PRETRAINED, engine=engine, precision=precision)
        found[name] = [
            segmenter.predictor.labels(sample.image, sample.labels.shape)
            for sample in tqdm(samples, name, disable=None)
        ]
    truth = [sample.labels for sample in samples]
    scores = [{"engine": name, "dsb_score against the truth": score(truth, labels)} for name, labels in found.items()]
    pairs = [
        {
            "one": one,
            "other": other,
            "dsb_score of one against the other": score(found[one], found[other]),
            "least of an image": min(image_scores(found[one], found[other])),
            "images with the same pixels": sum(map(np.array_equal, found[one], found[other])),
        }
        for one, other in combinations(found, 2)
    ]
    parts = [
        describe("onnxruntime"),
        f"{len(samples)} validation images, {models.PRETRAINED.name} as it ships, all views.",
        pd.DataFrame(scores).to_markdown(index=False, floatfmt=".4f"),
        pd.DataFrame(pairs).to_markdown(index=False, floatfmt=".4f"),
    ]
    RESULT.write_text("\n\n".join(parts) + "\n")
    print(RESULT.read_text())


def image_scores(one: list[np.ndarray], other: list[np.ndarray]) -> list[float]:
    """Return the dsb_score of each image of `other`, with `one` as the truth."""
    return [metrics.dsb_score(metrics.instance_counts(a, b)) for a, b in zip(one, other, strict=True)]


def score(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Return the mean of `image_scores`."""
    return float(np.mean(image_scores(one, other)))


if __name__ == "__main__":
    main()
