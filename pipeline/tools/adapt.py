"""Adapt this project's model to annotated images, as `nuclei-unet adapt` does, with the training data at hand.

    make adapt IMAGES=images LABELS=labels OUT=my-lab.onnx

Half of each batch of the fine-tuning are crops of data/processed/, the images that the model was trained on, so that it
does not forget them (left out if that data set is missing, or was normalized otherwise). The run is logged to MLflow:
arguments, scores before and after, the model. Takes the options of `nuclei-unet adapt`; --model is models/model.onnx.
"""

import argparse
import sys
from collections.abc import Sequence

from nuclei_unet.commands import adapt
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.sample import Sample
from nuclei_unet.settings import NormalizeSettings
from pipeline import layout, params, stage
from pipeline.dataset import processed
from pipeline.tracking import adaptation, store


def main() -> None:
    """Adapt, and log the run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    adapt.add_arguments(parser)
    settings = params.load()
    default = str(layout.MODEL) if layout.MODEL.exists() else None
    # The number of threads decides how sums are split: as in training.
    parser.set_defaults(model=default, threads=settings.train.threads)
    arguments = parser.parse_args()
    adapted = adapt.run(arguments, lambda metadata: replay(metadata, settings))
    given = {key: value for key, value in vars(arguments).items() if value is not None}
    store.Attempts().do(adaptation.log, arguments.out, given, adapted)


def replay(metadata: Metadata, settings: params.Params) -> Sequence[Sample]:
    """Return the training images as the model has seen them; none, with a note on stderr, if they are not there."""
    ours = NormalizeSettings(**{key: getattr(settings.preprocess, key) for key in NormalizeSettings.model_fields})
    reason = ""
    if not (layout.PROCESSED / processed.MANIFEST).exists():
        reason = "data/processed is missing"
    elif metadata.normalize != ours:
        reason = "params.yaml normalizes images otherwise than the model"
    if reason:
        print(f"note: without images of the training in the fine-tuning: {reason}", file=sys.stderr)
        return ()
    return processed.read_split("train")


if __name__ == "__main__":
    stage.run(main)
