"""Original or corrected labels? Train on each, score both on the validation images against both.

    python -m benchmarks.labels --epochs 8

Needs the archives of `download.source: bbbc038` and `bbbc038-fixed`. Both trainings use params.yaml
except for the number of epochs, the same split (that of the original images) and the same crops. Writes
benchmarks/results/labels.md.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork

from nuclei_unet.batch.pool import open_pool
from nuclei_unet.evaluation import metrics
from nuclei_unet.network import runtime
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.sample import ArraySample, Sample
from nuclei_unet.training import fit
from pipeline import download, params, preprocess
from pipeline.dataset import processed
from pipeline.machine import cpus

SOURCES = ("bbbc038", "bbbc038-fixed")
RESULT = Path("benchmarks/results/labels.md")


def main() -> None:
    """Write the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    epochs = parser.parse_args().epochs
    settings = params.load()
    runtime.configure(settings.train)
    with tempfile.TemporaryDirectory() as folder:
        splits = {source: read(source, Path(folder, source), settings) for source in SOURCES}
    # One split for both: that of the original images, without the few that the correction dropped.
    split_of = {sample.image_id: sample.split for sample in splits["bbbc038"].values()}
    shared = sorted(set(splits["bbbc038"]) & set(splits["bbbc038-fixed"]))
    scores = {}
    for source in SOURCES:
        images = [replace(sample, split=split_of[name]) for name, sample in splits[source].items()]
        training = [sample for sample in images if sample.split == "train"]
        validation = [splits[source][name] for name in shared if split_of[name] == "validation"]
        runtime.configure(settings.train)
        short = settings.train.model_copy(update={"epochs": epochs})
        model, _ = fit.train(training, validation, short, settings.preprocess.channels, lambda *_: None)
        predictor = Predictor(TensorFlowNetwork(model, settings.train.model), settings.train.model, settings.evaluate)
        predicted = {s.image_id: predictor.labels(s.image) for s in validation}
        for truth in SOURCES:
            counts = [metrics.instance_counts(splits[truth][name].labels, found) for name, found in predicted.items()]
            scores[source, truth] = np.mean([metrics.dsb_score(count) for count in counts])
            print(f"trained on {source}, scored against {truth}: {scores[source, truth]:.4f}")
    lines = [
        f"Mean dsb_score of {len(predicted)} validation images after {epochs} epochs "
        f"of {settings.train.steps_per_epoch} steps.",
        "",
        "| trained on | scored against original | scored against corrected |",
        "|---|---|---|",
        *(f"| {s} | {scores[s, 'bbbc038']:.4f} | {scores[s, 'bbbc038-fixed']:.4f} |" for s in SOURCES),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print(RESULT.read_text())


def read(source: str, folder: Path, settings: params.Params) -> dict[str, Sample]:
    """Download and preprocess a data set into `folder`; return its training and validation images by id."""
    raw, target = folder / "raw", folder / "processed"
    raw.mkdir(parents=True)
    target.mkdir()
    download.write_published(source, raw)
    with open_pool(threads=cpus()) as pool:
        images, _ = preprocess.process(raw / "stage1_train.zip", target, settings.preprocess, pool)
    stand_in = replace(images[0], image_id="no test image")
    preprocess.make_manifest(images, [stand_in], settings.preprocess).to_csv(target / processed.MANIFEST, index=False)
    found = processed.read_split("train", target) + processed.read_split("validation", target)
    # Into memory: the folder is a temporary one.
    return {s.image_id: ArraySample(s.image_id, s.split, s.image_type, s.image, s.labels) for s in found}


if __name__ == "__main__":
    main()
