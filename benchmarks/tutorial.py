"""How good is the tutorial that this project started from, and how soon is our network as good?

    python -m benchmarks.tutorial [--steps 180] [--batch 8] [--as-published]

Runs one after the other, each in a process of its own:

- the tutorial, reimplemented here: images and masks resized to 128x128 with scikit-image, a plain U-Net in
  float32, Adam, early stopping, connected components of the thresholded map. Its masks are thresholded at one half;
  with --as-published every resized value above 0 is nucleus, as in the tutorial;
- `pipeline.preprocess` and `pipeline.train` with params.yaml, but with one epoch of `--steps` steps of `--batch`
  crops (with so few crops, many small steps are better than few large ones).

Both start from the raw archives and train on the images of the training split; seconds are those of preprocessing
and training, scores those of the validation images and of stage1_test. Needs `dvc repro preprocess`. Writes
benchmarks/results/tutorial.md (or tutorial-as-published.md).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.measure import label
from skimage.transform import resize
from tqdm import tqdm

from benchmarks.preprocess import SIZE
from benchmarks.preprocess import tutorial as read_and_resize
from nuclei_unet.batch.pool import open_pool
from nuclei_unet.evaluation import metrics
from nuclei_unet.images import to_rgb
from nuclei_unet.sample import Sample
from pipeline import layout, params, preprocess
from pipeline.dataset import archives, processed
from pipeline.machine import cpus, describe

RESULTS = Path("benchmarks/results")
PREDICTIONS = Path("data/tutorial")


def main() -> None:
    """Write the table as Markdown, or, with `--only`, run one side and print its row as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=180, help="of our training")
    parser.add_argument("--batch", type=int, default=8, help="crops in each of them")
    parser.add_argument("--as-published", action="store_true")
    parser.add_argument("--only", choices=("tutorial", "pipeline"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        if arguments.only == "tutorial":
            row = tutorial(arguments.as_published)
        else:
            row = pipeline(arguments.steps, arguments.batch)
        print(json.dumps(row))
        return
    rows = []
    for side in ("tutorial", "pipeline"):
        command = [sys.executable, "-m", "benchmarks.tutorial", *sys.argv[1:], "--only", side]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append({"recipe": side, **json.loads(output.splitlines()[-1])})
    table = pd.DataFrame(rows).set_index("recipe")
    total = table["preprocessing, s"] + table["training, s"]
    text = "\n".join(
        [
            describe(),
            "",
            f"Tutorial: masks {'as published' if arguments.as_published else 'thresholded at one half'}. "
            f"Pipeline: {arguments.steps} steps of {arguments.batch} crops.",
            "",
            table.T.to_markdown(floatfmt=".3f"),
            "",
            f"Whole time of the pipeline over the tutorial's: {total.pipeline / total.tutorial:.3f}",
        ]
    )
    path = RESULTS / ("tutorial-as-published.md" if arguments.as_published else "tutorial.md")
    path.write_text(text + "\n")
    print(text)


def tutorial(as_published: bool) -> dict[str, float]:
    """Preprocess, train and score as the tutorial does."""
    import keras

    keras.utils.set_random_seed(2018)
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(layout.TRAIN_ARCHIVE) as zipped:
        # The tutorial gets its files extracted.
        zipped.extractall(name)
        ids = archives.image_ids(zipped)
        started = time.perf_counter()
        images, masks = read_and_resize(Path(name), ids, 0 if as_published else 127)
        seconds = {"preprocessing, s": time.perf_counter() - started}
    training = {sample.image_id for sample in processed.read_split("train")}
    kept = [n for n, image_id in enumerate(ids) if image_id in training]

    started = time.perf_counter()
    model = network()
    model.compile("adam", "binary_crossentropy")
    history = model.fit(
        images[kept],
        masks[kept].astype(np.float32),
        validation_split=0.1,
        batch_size=16,
        epochs=25,
        callbacks=[keras.callbacks.EarlyStopping(patience=2)],
        verbose=2,
    )
    seconds["training, s"] = time.perf_counter() - started

    def predict(image_id: str, shape: tuple[int, int]) -> np.ndarray:
        small = resize(originals[image_id], SIZE, mode="constant", preserve_range=True).astype(np.uint8)
        return resize(model.predict(small[None], verbose=0)[0, ..., 0], shape, mode="constant") > 0.5

    scores = {}
    for split, archive in zip(layout.SCORED_SPLITS, (layout.TRAIN_ARCHIVE, layout.TEST_ARCHIVE), strict=True):
        samples = processed.read_split(split)
        with archives.open_archive(archive) as zipped:
            originals = {s.image_id: colours(zipped, s.image_id) for s in samples}
        found = [label(predict(s.image_id, s.labels.shape), connectivity=1) for s in tqdm(samples, split)]
        scores |= score(split, samples, found)
        if not as_published:  # for benchmarks.peers
            PREDICTIONS.mkdir(exist_ok=True)
            for sample, labels in zip(samples, found, strict=True):
                processed.write_labels(PREDICTIONS / f"{sample.image_id}.png", labels)
    return seconds | {"epochs": len(history.epoch)} | scores


def network():
    """Return the tutorial's U-Net, (N, 128, 128, 3) in 0 ... 255 to (N, 128, 128, 1)."""
    from keras import Model, layers

    def convolutions(x, filters, dropout):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        x = layers.Dropout(dropout)(x)
        return layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)

    levels = list(zip((16, 32, 64, 128, 256), (0.1, 0.1, 0.2, 0.2, 0.3), strict=True))
    inputs = layers.Input((*SIZE, 3))
    x, skips = layers.Rescaling(1 / 255)(inputs), []
    for filters, dropout in levels[:-1]:
        x = convolutions(x, filters, dropout)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = convolutions(x, *levels[-1])
    for filters, dropout in levels[-2::-1]:
        x = layers.Conv2DTranspose(filters, 2, 2, padding="same")(x)
        x = convolutions(layers.Concatenate()([x, skips.pop()]), filters, dropout)
    return Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))


def pipeline(steps: int, batch: int) -> dict[str, float]:
    """Preprocess, train and score as the pipeline does, with a short training."""
    from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork

    from nuclei_unet.network import runtime
    from nuclei_unet.prediction.predictor import Predictor
    from nuclei_unet.training import fit

    settings = params.load()
    runtime.configure(settings.train)
    with tempfile.TemporaryDirectory() as name:
        started = time.perf_counter()
        with open_pool(threads=cpus()) as pool:
            made, _ = preprocess.process(layout.TRAIN_ARCHIVE, Path(name), settings.preprocess, pool)
        manifest = preprocess.make_manifest(made, [replace(made[0], image_id="a test image")], settings.preprocess)
        seconds = {"preprocessing, s": time.perf_counter() - started}
    splits = {split: processed.read_split(split) for split in layout.SPLITS}
    # The split just made is the one on disk.
    assert set(manifest.image_id[manifest.split == "train"]) == {s.image_id for s in splits["train"]}
    short = settings.train.model_copy(update={"epochs": 1, "steps_per_epoch": steps, "batch_size": batch})
    started = time.perf_counter()
    channels = settings.preprocess.channels
    model, _ = fit.train(splits["train"], splits["validation"], short, channels, lambda *_: None)
    seconds["training, s"] = time.perf_counter() - started
    predictor = Predictor(TensorFlowNetwork(model, short.model), short.model, settings.evaluate)
    scores = {}
    for split in layout.SCORED_SPLITS:
        found = [predictor.labels(s.image, s.labels.shape) for s in tqdm(splits[split], split)]
        scores |= score(split, splits[split], found)
    return seconds | {"epochs": steps * short.batch_size / len(splits["train"])} | scores


def colours(zipped: zipfile.ZipFile, image_id: str) -> np.ndarray:
    """Return an image as the tutorial reads it, uint8 (H, W, 3)."""
    return to_rgb(archives.read_image(zipped, archives.image_member(image_id)))


def score(split: str, samples: list[Sample], found: list[np.ndarray]) -> dict[str, float]:
    """Return pixel IoU, dsb_score and pooled AP50 of the label images found."""
    counts = [metrics.instance_counts(s.labels, f) for s, f in zip(samples, found, strict=True)]
    pixels = [metrics.pixel_scores(metrics.pixel_counts(s.labels, f)) for s, f in zip(samples, found, strict=True)]
    return {
        f"{split} IoU": float(np.mean([p["iou"] for p in pixels])),
        f"{split} dsb_score": float(np.mean([metrics.dsb_score(c) for c in counts])),
        f"{split} AP50": metrics.average_precision(metrics.pooled(counts), 0.5),
    }


if __name__ == "__main__":
    main()
