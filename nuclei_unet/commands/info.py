"""Say what a model is: its metadata, its scores, and where it is from.

nuclei-unet info                                   the pretrained model of this package
nuclei-unet info my-lab.onnx
nuclei-unet info models:/nuclei-unet@champion      of the MLflow registry (needs the extra train)
"""

import argparse
import json

from nuclei_unet.errors import one_line
from nuclei_unet.network.metadata import Adaptation, Metadata
from nuclei_unet.prediction import models

MISSING = "not recorded in this file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command understands."""
    parser.add_argument("model", nargs="?", help="an .onnx or .zip file, or an address; default: pretrained")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def main(arguments: argparse.Namespace) -> int:
    """Print what a model says about itself; return the exit code."""
    metadata, name, digest = models.describe(arguments.model)
    if arguments.json:
        print(json.dumps({"name": name, "sha256": digest, **metadata.model_dump(mode="json")}, indent=1))
        return 0
    facts = {"model": name, "SHA-256": digest} | _facts(metadata)
    width = max(map(len, facts))
    for key, fact in facts.items():
        print(f"{key:<{width}}  {one_line(fact or MISSING)}")
    for split, groups in metadata.scores.items():
        print(f"\nscores on {groups.get('n_images', '?')} {one_line(split)} images")
        for group, values in groups.items():
            for key, value in values.items() if isinstance(values, dict) else ():
                print(f"  {one_line(f'{group}/{key}'):<32} {value:.3f}")
    for title, section in (("image to network", metadata.normalize), ("maps to nuclei", metadata.predict)):
        print(f"\n{title}")
        for key, setting in (section.model_dump() if section else {"": MISSING}).items():
            print(f"  {key:<32} {setting}")
    return 0


def _facts(metadata: Metadata) -> dict[str, str | None]:
    return {
        "from": f"{metadata.source} (SHA-256 of the .keras file)" if metadata.source else None,
        "commit": metadata.commit,
        "trained on": f"data with SHA-256 {metadata.data}",
        **(_adaptation(metadata.adapted, metadata.parent) if metadata.adapted else {}),
        "licence": metadata.licence,
        "maps": ", ".join(metadata.targets),
        "filters": ", ".join(map(str, metadata.network.filters)),
        "sees nuclei at": f"{metadata.diameter:g} px: images are scaled to that" if metadata.diameter else None,
    }


def _adaptation(adapted: Adaptation, parent: str | None) -> dict[str, str]:
    where = "images that it was not adapted to" if adapted.cross_validated else "the same images"
    gain = f"{adapted.after - adapted.before:+.3f}: dsb_score {adapted.before:.3f} -> {adapted.after:.3f}"
    return {
        "adapted from": f"the model with SHA-256 {parent}",
        "adapted to": f"{adapted.images:,} images with {adapted.nuclei:,} nuclei, SHA-256 {adapted.data}",
        "fine-tuned for": f"{adapted.steps} steps" if adapted.steps else "0 steps: its settings alone were adapted",
        "that helped by": f"{gain} on {where}",
    }
