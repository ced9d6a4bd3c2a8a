"""Adapt a model to a few annotated images: outline style, thresholds, weights; and say whether it helped.

Everything is measured by cross-validation: an image is scored with settings and weights that were chosen on others.
"""

import hashlib
import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuclei_unet.adaptation import DEFAULT, Settings, folds, require_tensorflow
from nuclei_unet.adaptation.calibrate import BASELINE, baseline, calibrated
from nuclei_unet.adaptation.study import Study, Trials, Variant, see
from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.images import normalize
from nuclei_unet.labels import renumber
from nuclei_unet.network.metadata import Adaptation, Metadata
from nuclei_unet.prediction import models
from nuclei_unet.prediction.engine import OnnxNetwork
from nuclei_unet.sample import ArraySample, Sample
from nuclei_unet.settings import NormalizeSettings

# By how much a more elaborate model must beat a simpler one, mean dsb_score: less may be chance.
MARGIN = 0.005
MOST_IMAGES = 100


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of an adaptation.

    Attributes
    ----------
    scores : {baseline, offset only, calibrated, fine-tuned: {dsb_score, ap50, iou}}; what was not tried is missing
    chosen : one of these names; baseline if nothing helped
    cross_validated : whether each image was scored by a model that was adapted to others; else there were too few
    metadata, data : of the adapted model, None if nothing helped, and the content of an ONNX file with its network
    """

    scores: dict[str, dict[str, float]]
    chosen: str
    cross_validated: bool
    metadata: Metadata | None
    data: bytes = b""

    @property
    def helped(self) -> bool:
        """Whether there is an adapted model."""
        return self.metadata is not None

    def save(self, path: Path) -> None:
        """Write the adapted model, an .onnx file; the same one gives the same bytes. Raises ValueError without one."""
        from nuclei_unet.network import onnx_file  # imports TensorFlow

        if self.metadata is None:
            raise ValueError("the adaptation did not help, so there is no adapted model")
        with fresh_file(path) as file:
            file.write_bytes(self.data)
            onnx_file.copy(file, file, self.metadata)


def annotated(name: str, image: np.ndarray, labels: np.ndarray, normalization: NormalizeSettings) -> ArraySample:
    """Return an image with its annotation as `adapt` takes it.

    `name` is unique among the images, `image` any array that `Segmenter` takes, `labels` its label image (H, W);
    `normalization` is that of the model's metadata. Raises InputError if it is no image, of another size than the
    labels, or has more than 65,535 nuclei.
    """
    if labels.shape != image.shape[:2]:
        (height, width), (high, wide) = image.shape[:2], labels.shape
        raise InputError(f"{name}: the image has {height} x {width} pixels, but its labels {high} x {wide}")
    try:
        truth = renumber(labels)
    except ValueError as error:
        raise InputError(f"{name}: {error}; cut the image into parts") from None
    try:
        return ArraySample(name, "train", "annotated", normalize(image, normalization), truth)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def adapt(
    samples: Sequence[Sample],
    model: Path | str | None = None,
    settings: Settings = DEFAULT,
    *,
    replay: Sequence[Sample] = (),
    frames: Sequence[Hashable] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Adapted:
    """Adapt a model to annotated images, and measure whether that helps.

    `samples` are 1 to 100 images with their label images, see `annotated`; some may be without nuclei. `model` is as
    for `models.load`. `replay` are images that the model was trained on, normalized in the same way; half of each batch
    is drawn from them. `frames` say what each sample is cut from; samples of one frame are never adapted to and scored
    at the same time. `progress` gets the number of steps done, and of all: images predicted, and steps of training.

    Raises InputError if there is no sample or too many, no nucleus in any, a model that cannot be adapted, or no
    TensorFlow.
    """
    require_tensorflow()
    nuclei = [folds.nuclei_in(sample.labels) for sample in samples]
    check(len(samples), sum(nuclei))
    study, digest = _study(samples, model, settings, replay, frames, progress)
    metadata = study.metadata
    # All ways that there are enough annotations for, from the simplest on.
    variants = [baseline(study), calibrated(study, search=False)]
    if study.cross_validated and study.enough:
        variants.append(calibrated(study, search=True))
    if study.cross_validated and not settings.calibrate_only:
        from nuclei_unet.adaptation.finetune import fine_tuned  # imports TensorFlow

        variants += filter(None, [fine_tuned(study)])
    best = choose(variants)
    predict, data = best.finish()
    scores = {variant.name: variant.scores for variant in variants}
    # What helped on parts of the images may change nothing on all of them.
    if (predict, data) == (metadata.predict, study.data):
        return Adapted(scores, BASELINE, study.cross_validated, None)
    digest_of_data = hashlib.sha256()
    for sample in samples:
        for array in (sample.image, sample.labels):
            head = f"{sample.image_id!r} {array.shape} {array.dtype}\n"
            digest_of_data.update(head.encode() + array.tobytes())
    made = Adaptation(
        images=len(samples),
        nuclei=sum(nuclei),
        data=digest_of_data.hexdigest(),
        steps=best.steps,
        before=scores[BASELINE]["dsb_score"],
        after=scores[best.name]["dsb_score"],
        cross_validated=study.cross_validated,
    )
    # Scores, commit and source are the parent's.
    described = metadata.but(predict=predict, parent=digest, adapted=made, scores={}, commit=None, source=None)
    return Adapted(scores, best.name, study.cross_validated, described, data)


def _study(
    samples: Sequence[Sample],
    model: Path | str | None,
    settings: Settings,
    replay: Sequence[Sample],
    frames: Sequence[Hashable] | None,
    progress: Callable[[int, int], None],
) -> tuple[Study, str]:
    """Open the model and predict the images; return what ways of adapting get, and the model's SHA-256."""
    data, name, digest = models.content(model)
    network = OnnxNetwork(data, name, threads=settings.threads)
    metadata = network.metadata
    if metadata.predict is None:
        raise InputError(f"{name}: was trained but not evaluated, so it does not say how its maps become nuclei")
    pieces, splits = folds.split(samples, frames)
    parts = [folds.scored_part(piece) for piece in pieces]
    # A training on the others of each fold, and one on all images.
    trainings = len(splits) + 1 if len(splits) > 1 and not settings.calibrate_only else 0
    total, steps = len(parts) + trainings * max(settings.stops), itertools.count(1)

    def on_step() -> None:
        progress(next(steps), total)

    seen = []
    for part in parts:
        seen.append(see(network, metadata, part))
        on_step()
    return Study(data, metadata, samples, pieces, parts, splits, Trials(seen), replay, settings, on_step), digest


def check(images: int, nuclei: int = 1) -> None:
    """Raise InputError if there are too few annotations, or too many."""
    if not 1 <= images <= MOST_IMAGES:
        raise InputError(f"{images} annotated images; adapt takes 1 to {MOST_IMAGES}")
    if not nuclei:
        raise InputError("none of the label images has a nucleus; there is nothing to adapt to")


def choose(variants: Sequence[Variant]) -> Variant:
    """Return the best by dsb_score. They come from the simplest on; each must beat the best so far by `MARGIN`."""
    best = variants[0]
    for variant in variants[1:]:
        if variant.scores["dsb_score"] > best.scores["dsb_score"] + MARGIN:
            best = variant
    return best
