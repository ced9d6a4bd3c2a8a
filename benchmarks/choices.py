"""What is each choice at prediction worth? The trained model with one `evaluate` parameter changed at a time.

    python -m benchmarks.choices

Scores the validation images with the parameters of params.yaml and with each variant below. Needs `dvc repro evaluate`.
Writes benchmarks/results/choices.md. (`benchmarks.ablation` does the same for choices that need a training.)
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet.evaluation import metrics
from nuclei_unet.network import runtime
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.prediction.predictor import passes
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline import layout, params
from pipeline.dataset import processed
from pipeline.machine import describe

RESULT = Path("benchmarks/results/choices.md")
CHANGES: list[dict[str, object]] = [
    *({"views": "thorough"} | more for more in ({}, {"orientations": 1}, {"orientations": 8}, {"scales": (1.0,)})),
    *({"foreground_threshold": value} for value in (0.4, 0.45, 0.55, 0.6)),
    *({"outline_range": 0.0, "foreground_threshold": value} for value in (0.4, 0.45, 0.5, 0.55, 0.6)),
    *({"outline_pull": value} for value in (0.0, 0.3, 1.0)),
    *({"border_weight": value} for value in (0.0, 1.0)),
    *({"smoothing": value} for value in (0.0, 2.0)),
    *({"prominence": value} for value in (0.05, 0.15, 0.2)),
    *({"min_area": value} for value in (0, 15, 60)),
]


def main() -> None:
    """Write the table as Markdown."""
    settings = params.load()
    runtime.configure(settings.train)
    variants = {"as in params.yaml": settings.evaluate}
    for change in CHANGES:
        name = ", ".join(f"{key} {_plain(value)}" for key, value in change.items())
        variants[name] = settings.evaluate.model_copy(update=change)
    load = partial(Segmenter.load, layout.MODEL, precision=settings.train.precision)
    predictors = {passes(v): load(predict=v).predictor for v in variants.values()}
    scores: dict[str, list[float]] = {name: [] for name in variants}
    for sample in tqdm(processed.read_split("validation"), "validation", unit="image", disable=None):
        image, truth = sample.image, sample.labels
        maps = {seen: predictor.maps(image, truth.shape) for seen, predictor in predictors.items()}
        for name, variant in variants.items():
            found = label_nuclei(maps[passes(variant)], variant, image)
            scores[name].append(metrics.dsb_score(metrics.instance_counts(truth, found)))
    default = np.array(scores["as in params.yaml"])
    rows = []
    for name, values in scores.items():
        low, high = metrics.bootstrap_interval(np.array(values) - default)
        interval = "" if name == "as in params.yaml" else f"{low:+.3f} to {high:+.3f}"
        rows.append((name, np.mean(values), np.mean(values) - default.mean(), interval))
    table = pd.DataFrame(rows, columns=["evaluate", "dsb_score", "difference", "95% interval (paired)"])
    text = f"{describe()}\n\n{len(default)} validation images.\n\n{table.to_markdown(index=False, floatfmt='.3f')}"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text + "\n")
    print(text)


def _plain(value: object) -> str:
    if isinstance(value, str):
        return value
    return "[" + ", ".join(f"{v:g}" for v in value) + "]" if isinstance(value, tuple) else f"{value:g}"


if __name__ == "__main__":
    main()
