"""A model described as the BioImage Model Zoo wants it: the fields of rdf.yaml, format 0.5, and README.md.

The format: https://bioimage-io.github.io/spec-bioimage-io/. Nothing here reads or writes a file of the project.
"""

from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np

from nuclei_unet.network.metadata import INPUT, OUTPUT, Metadata
from nuclei_unet.settings import NormalizeSettings
from pipeline.params import Params
from pipeline.report import scores
from pipeline.report.results import Results

FORMAT = "0.5.12"
AUTHORS = [{"name": "The nuclei-unet authors"}]  # as LICENSE has it
BBBC038 = "https://bbbc.broadinstitute.org/BBBC038"
CITATIONS = [
    {
        "text": "Ronneberger, O., Fischer, P., Brox, T.: U-Net: Convolutional Networks for Biomedical Image "
        "Segmentation. MICCAI 2015.",
        "doi": "10.1007/978-3-319-24574-4_28",
    },
    {
        "text": "Caicedo, J. C. et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. "
        "Nature Methods 16, 2019.",
        "doi": "10.1038/s41592-019-0612-7",
    },
    {"text": "Image set BBBC038v1, Broad Bioimage Benchmark Collection.", "url": BBBC038},
]
TAGS = [
    *("unet", "2d", "nuclei", "nucleus", "onnx", "semantic-segmentation", "instance-segmentation"),
    *("fluorescence-light-microscopy", "transmission-light-microscopy", "histology", "dsb2018"),
]
MEANINGS = {
    "foreground": "inside a nucleus",
    "border": "between nuclei that touch",
    "distance": "to the edge of the nucleus, 0 ... 1, highest in its middle",
}
# Multiples of the network's own: the smallest side of an image, and what is wrong at the edges of a tile.
SMALLEST, HALO = 8, 2


def preprocess(image: np.ndarray, settings: NormalizeSettings) -> np.ndarray:
    """Do to an image, float32 (1, H, W, channels), what the fields of `preprocessing` say."""
    if settings.percentiles is None:
        return image
    low, high = np.percentile(image, settings.percentiles)
    return (np.clip((image - low) / (high - low + 1e-6), 0, 1) * 255).astype(np.float32)


def preprocessing(settings: NormalizeSettings) -> list[dict]:
    """Return the part of the normalization that the format has fields for."""
    steps = [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}]
    if settings.percentiles is not None:
        low, high = settings.percentiles
        axes = ["y", "x"] if settings.channels == 1 else ["y", "x", "channel"]
        steps += [
            {"id": "scale_range", "kwargs": {"axes": axes, "min_percentile": low, "max_percentile": high}},
            {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
            {"id": "scale_linear", "kwargs": {"gain": 255.0, "offset": 0.0}},
        ]
    return steps


def description(metadata: Metadata, settings: Params, results: Results, files: Mapping, version: str) -> dict:
    """Return the content of rdf.yaml.

    `files` is {"covers", "documentation", "attachments", "weights", INPUT, OUTPUT: a file's fields (`source`,
    `sha256`), or a list or mapping of them}.
    """
    multiple = metadata.network.size_multiple
    colours = ["intensity"] if metadata.normalize.channels == 1 else ["red", "green", "blue"]
    sides = {"min": SMALLEST * multiple, "step": multiple}
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": "Nuclei U-Net",
        "description": "Finds cell nuclei in fluorescence and stained-tissue images. Delivers maps, not nuclei; the "
        "README says how the maps become nuclei. Nuclei must be lighter than the background: invert bright-field "
        "images first.",
        "authors": AUTHORS,
        "cite": CITATIONS,
        "license": "MIT",
        "tags": TAGS,
        "version": version,
        "documentation": files["documentation"],
        "attachments": files["attachments"],
        "covers": files["covers"],
        "inputs": [
            {
                "id": INPUT,
                "description": "Light nuclei on a dark background, any range; see README for bright-field images.",
                "axes": [
                    {"type": "batch"},
                    *({"type": "space", "id": axis, "size": sides, "concatenable": True} for axis in ("y", "x")),
                    {"type": "channel", "channel_names": colours},
                ],
                "data": {"type": "float32"},
                "preprocessing": preprocessing(metadata.normalize),
                "test_tensor": files[INPUT],
            }
        ],
        "outputs": [
            {
                "id": OUTPUT,
                "description": "Maps in 0 ... 1, one a channel; see README for the way from maps to nuclei.",
                "axes": [
                    {"type": "batch"},
                    *(
                        {
                            "type": "space",
                            "id": axis,
                            "size": {"tensor_id": INPUT, "axis_id": axis},
                            "halo": HALO * multiple,
                        }
                        for axis in ("y", "x")
                    ),
                    {"type": "channel", "channel_names": [*metadata.targets]},
                ],
                "data": {"type": "float32", "range": [0.0, 1.0]},
                "test_tensor": files[OUTPUT],
            }
        ],
        "weights": files["weights"],
        "training_data": training_data(settings.download.source),
        "config": {
            "bioimageio": {
                "architecture_type": "2D U-Net",
                "modality": "fluorescence microscopy, bright-field microscopy of stained tissue",
                "target_structure": ["nuclei"],
                "task": "segmentation",
                "training": training(settings),
                "evaluations": [evaluation(results, settings.download.source)],
            },
        },
    }


def training_data(source: str) -> dict:
    """Return the description of the data set that `download.source` names."""
    if source == "synthetic":
        what = {"name": "Synthetic nuclei", "description": "Images drawn from a seed. Real images look different."}
    else:
        labels = " Labels corrected by the community." if source == "bbbc038-fixed" else ""
        what = {
            "name": "BBBC038v1 stage1_train",
            "description": f"Training images of the 2018 Data Science Bowl.{labels}",
            "source": BBBC038,
            "authors": [{"name": "Broad Bioimage Benchmark Collection"}],
            "cite": CITATIONS[1:],
        }
    return {"type": "dataset", "format_version": "0.3.0", "license": "CC0-1.0", "tags": ["nuclei"], **what}


def training(settings: Params) -> dict:
    """Return how the network was trained."""
    train = settings.train
    return {
        "training_epochs": train.epochs,
        "training_batch_size": train.batch_size,
        "initial_learning_rate": train.learning_rate,
        "learning_rate_schedule": train.schedule,
        "loss_function": train.loss,
        "optimizer": train.optimizer,
    }


def evaluation(results: Results, source: str) -> dict:
    """Return the scores of the test images: a row a score, a column for all images and for each image type."""
    rows = results.by_type[results.by_type.split == "test"]
    shown = [score for score in scores.main_ones() if score.over == "mean"]
    test = results.summary["test"]
    return {
        "dataset_id": "synthetic" if source == "synthetic" else "bbbc038",
        "dataset_source": BBBC038,
        "dataset_role": "test",
        "sample_count": int(test["n_images"]),
        # The format allows 16 characters.
        "evaluation_factors": [
            "overall",
            *(image_type.replace("fluorescent", "fluor")[:16] for image_type in rows.image_type),
        ],
        "evaluation_factors_long": [
            "all test images",
            *(f"images of type {image_type}" for image_type in rows.image_type),
        ],
        "metrics": [score.column for score in shown],
        "metrics_long": [score.meaning for score in shown],
        "results": [[test[score.group][score.key], *(float(value) for value in rows[score.column])] for score in shown],
    }


def readme(metadata: Metadata, results: Results) -> str:
    """Return the package's README.md."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["score"] = lambda value: f"{value:.3f}"
    by_type = results.by_type[results.by_type.split == "test"]
    template = Path(__file__).with_name("package.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        metadata=metadata,
        audit=results.audit,
        summary=results.summary,
        normalize=metadata.normalize,
        predict=metadata.predict,
        multiple=metadata.network.size_multiple,
        meanings={target: MEANINGS[target] for target in metadata.targets},
        rows=scores.score_rows(results.summary),
        by_type=by_type.sort_values(["n_images", "image_type"], ascending=[False, True]),
        cite=CITATIONS,
    )
