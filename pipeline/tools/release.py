"""Put the evaluated model into the package, as the one that `nuclei-unet predict` uses when none is named.

    python -m pipeline.tools.release

Reads models/model.keras, data/processed/ and dvc.lock. Writes it as ONNX, with what it scores in that form, to
nuclei_unet/pretrained/model.onnx, and beside it model.json: digest, commit, licence, main scores, and scores on drawn
images, which a test repeats. Weights are stored in half precision if no main score on the validation images changes by
more than 0.001. Takes some minutes. Test images are scored for the record and decide nothing.
"""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nuclei_unet.errors import InputError
from nuclei_unet.evaluation.scores import count, main_ones, of_images
from nuclei_unet.files import file_digest, fresh_file
from nuclei_unet.network import keras_file, onnx_file
from nuclei_unet.network.metadata import Diameters, Metadata
from nuclei_unet.prediction import checks, models
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline import git, layout
from pipeline.dataset import processed, synthetic
from pipeline.stage import run

TOLERANCE = 0.001
LICENCE = "MIT; trained on BBBC038v1, which is in the public domain (CC0 1.0)"
DRAWN = {"images": 6, "seed": 2018}


def main() -> None:
    """Write nuclei_unet/pretrained/."""
    metadata = keras_file.read_metadata(layout.MODEL).model_copy(update={"commit": commit()})
    keras_model = keras_file.load(layout.MODEL)
    metadata = Metadata(metadata=metadata, diameters=diameters(), licence=LICENCE, source=file_digest(layout.MODEL))
    with tempfile.TemporaryDirectory() as folder:
        measured = {}
        for half in (False, True):
            path = Path(folder, f"{half}.onnx")
            onnx_file.save(keras_model, path, metadata, half=half)
            segmenter = Segmenter.load(path, engine="onnx")
            measured[half] = {"validation": of_split(segmenter, "validation", half)}
        full, halved = (measured[half]["validation"] for half in (False, True))
        change = max(abs(halved[score.group][score.key] - full[score.group][score.key]) for score in main_ones())
        half = change <= TOLERANCE
        measured[half]["test"] = of_split(Segmenter.load(Path(folder, f"{half}.onnx"), engine="onnx"), "test", half)
    print(
        f"half precision changes main scores on validation images by at most {change:.5f}: {'taken' if half else 'no'}"
    )
    metadata = metadata.model_copy(update={"scores": measured[half]})
    with fresh_file(models.PRETRAINED) as path:
        onnx_file.save(keras_model, path, metadata, half=half)
    facts = {
        "sha256": file_digest(models.PRETRAINED),
        "source": metadata.source,
        "commit": metadata.commit,
        "licence": LICENCE,
        "half_precision": half,
        "scores": {
            split: {score.key: groups[score.group][score.key] for score in main_ones()}
            for split, groups in measured[half].items()
        },
        "drawn": {**DRAWN, **drawn_scores(Segmenter.load(engine="onnx"))},
    }
    with fresh_file(models.PRETRAINED.with_suffix(".json")) as path:
        path.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))
    print(f"wrote {models.PRETRAINED} ({models.PRETRAINED.stat().st_size / 1e6:.1f} MB); commit it with its model.json")


def commit() -> str:
    """Return the commit whose dvc.lock first named models/model.keras as it is. Raises InputError if none does."""
    digest = hashlib.md5(layout.MODEL.read_bytes(), usedforsecurity=False).hexdigest()
    found = git.git("log", "--reverse", "--format=%H", f"-S{digest}", "--", str(layout.DVC_LOCK)).split()
    if not found:
        raise InputError(f"{layout.MODEL}: no commit's {layout.DVC_LOCK} has it; commit what `dvc repro` wrote first")
    return found[0]


def diameters() -> Diameters:
    """Measure the nuclei that the model was trained on: the median diameter in each image, px."""
    found = [np.median(checks.diameters(sample.labels)) for sample in processed.read_split("train")]
    low, typical, high = (round(float(value), 1) for value in np.percentile(found, (1, 50, 99)))
    return Diameters(low=low, typical=typical, high=high)


def of_split(segmenter: Segmenter, split: str, half: bool) -> dict:
    """Return the scores of a split's images, as scores.json has them."""
    name = f"{split}, {'half' if half else 'full'} precision"
    counted = [
        count(sample.labels, segmenter.predictor.labels(sample.image, sample.labels.shape))
        for sample in tqdm(processed.read_split(split), name, unit="image", disable=None)
    ]
    return {"n_images": len(counted), **of_images(counted)}


def drawn_scores(segmenter: Segmenter) -> dict[str, float]:
    """Return the main scores on images that are drawn from a seed; see `pipeline.dataset.synthetic`."""
    images = synthetic.held_out_images(DRAWN["images"], DRAWN["seed"])
    counted = [count(labels, segmenter(image)) for _, image, labels in images]
    found = of_images(counted)
    return {score.key: found[score.group][score.key] for score in main_ones()}


if __name__ == "__main__":
    run(main)
