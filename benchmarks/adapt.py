"""What is it worth to annotate k images of one's own? stage1_test in five folds, adapted to k images of the others.

    python -m benchmarks.adapt [--k 1 2 5 10 20 50] [--folds 5]

The test images are split into five folds by source frame: neighbouring tiles, which preprocess finds, stay together.
For each fold and k, `nuclei-unet adapt` gets the first k images of the other folds, in a fixed random order, and the
fold is scored with
  plain       models/model.onnx as it is
  calibrated  the model that `adapt --calibrate-only` writes
  adapted     the one that `adapt` writes
and with models/model.onnx again where adapt says that nothing helped. Needs `dvc repro evaluate`. Writes
benchmarks/results/adapt.md. All on 2 cores takes a night; --folds 1 gives a first look.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.measure import measure, save_table, write
from nuclei_unet.adaptation.folds import folds, nuclei_in
from nuclei_unet.evaluation import metrics
from nuclei_unet.images import to_rgb
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline import layout
from pipeline.dataset import archives, processed
from pipeline.machine import describe

RESULT = Path("benchmarks/results/adapt.md")
FOLDS = 5
WAYS = {"calibrated": ["--calibrate-only"], "adapted": []}


def main() -> None:
    """Write the table after each fold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50], help="numbers of annotated images")
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"score only the first of the {FOLDS} folds")
    arguments = parser.parse_args()
    samples = processed.read_split("test")
    with archives.open_archive(layout.TEST_ARCHIVE) as zipped:
        images = [to_rgb(archives.read_image(zipped, archives.image_member(s.image_id))) for s in samples]
    frames = processed.read_manifest().set_index("image_id").frame
    groups = [frames[sample.image_id] for sample in samples]
    place = np.array(folds(groups, [nuclei_in(sample.labels) for sample in samples], FOLDS))

    def score(find: Callable[[int], np.ndarray], which: Iterable[int]) -> list[float]:
        return [metrics.dsb_score(metrics.instance_counts(samples[n].labels, find(n))) for n in which]

    def found_by(model: Path) -> Callable[[int], np.ndarray]:
        segmenter = Segmenter.load(model)
        return lambda n: segmenter(images[n])

    scores: dict[tuple[int, str], list[float]] = {}
    for fold in range(min(arguments.folds, FOLDS)):
        held_out = np.flatnonzero(place == fold)
        order = np.random.default_rng(2018).permutation(np.flatnonzero(place != fold))
        for k in arguments.k:
            finders = {"plain": found_by(layout.MODEL)}
            with tempfile.TemporaryDirectory() as name:
                for n in order[:k]:
                    write(Path(name, "images", f"{samples[n].image_id}.png"), images[n])
                    write(Path(name, "labels", f"{samples[n].image_id}.png"), samples[n].labels)
                for way, options in WAYS.items():
                    finders[way] = found_by(adapted(Path(name), options))
            for way, find in finders.items():
                scores.setdefault((k, way), []).extend(score(find, held_out))
        save_table(
            RESULT,
            describe("onnxruntime"),
            f"Mean dsb_score of the test images in {fold + 1} of {FOLDS} folds, each scored by a model that was "
            "adapted to images of other folds.",
            pd.Series({key: np.mean(values) for key, values in scores.items()}).unstack(sort=False).rename_axis("k"),
            digits=".3f",
        )


def adapted(folder: Path, options: list[str]) -> Path:
    """Adapt the model to the images and labels in a folder; return the model to use."""
    out = folder / "adapted.onnx"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "nuclei_unet", "adapt", folder / "images", folder / "labels", "--out", out]
    measure([*command, "--model", layout.MODEL, *options], folder / "log")
    return out if out.exists() else layout.MODEL


if __name__ == "__main__":
    main()
