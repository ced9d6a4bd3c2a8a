"""A model described as the BioImage Model Zoo wants it: rdf.yaml, format 0.5, and README.md.

The format: https://bioimage-io.github.io/spec-bioimage-io/. Nothing here reads or writes a file of the project.
"""

from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np

from nuclei_unet.network.metadata import INPUT, OUTPUT, Metadata
from nuclei_unet.settings import NormalizeSettings, TrainSettings
from pipeline.report import scores
from pipeline.report.results import Results

FORMAT = "0.5.12"
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
    {
        "text": "Image set BBBC038v1, Broad Bioimage Benchmark Collection.",
        "url": "https://bbbc.broadinstitute.org/BBBC038",
    },
]
MEANINGS = {
    "foreground": "inside a nucleus",
    "border": "between nuclei that touch",
    "distance": "to the edge of the nucleus, 0 ... 1, highest in its middle",
}


def preprocess(image: np.ndarray, settings: NormalizeSettings) -> np.ndarray:
    """Do to an image, float32 (1, H, W, channels), what the fields of `preprocessing` in rdf.yaml say."""
    if settings.percentiles is None:
        return image
    low, high = np.percentile(image, settings.percentiles)
    return (np.clip((image - low) / (high - low + 1e-6), 0, 1) * 255).astype(np.float32)


def description(metadata: Metadata, train: TrainSettings, results: Results, files: Mapping, version: str) -> str:
    """Return rdf.yaml. `files` is {"covers", "weights" ...: a file's fields (`source`, `sha256`) or a list of them}."""
    means = [score for score in scores.main_ones() if score.over == "mean"]
    more = {"format": FORMAT, "input": INPUT, "output": OUTPUT, "means": means, "train": train}
    return _render("package.yaml.jinja", metadata, results, files=files, version=version, **more)


def readme(metadata: Metadata, results: Results) -> str:
    """Return the package's README.md."""
    meanings = {target: MEANINGS[target] for target in metadata.targets}
    return _render("package.md.jinja", metadata, results, meanings=meanings, rows=scores.score_rows(results.summary))


def _render(template: str, metadata: Metadata, results: Results, **more) -> str:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["score"] = lambda value: f"{value:.3f}"
    by_type = results.by_type[results.by_type.split == "test"]
    return environment.from_string(Path(__file__).with_name(template).read_text(encoding="utf-8")).render(
        metadata=metadata,
        audit=results.audit,
        summary=results.summary,
        normalize=metadata.normalize,
        predict=metadata.predict,
        multiple=metadata.network.size_multiple,
        by_type=by_type.sort_values(["n_images", "image_type"], ascending=[False, True]),
        cite=CITATIONS,
        **more,
    )
