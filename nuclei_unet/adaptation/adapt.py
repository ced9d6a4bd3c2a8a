"""Adapt a model to a few annotated images: outline style, thresholds, weights; and say whether it helped.

Everything is measured by cross-validation: an image is scored with settings and weights that were chosen on others.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from nuclei_unet.adaptation import finetune, folds
from nuclei_unet.adaptation.calibrate import Annotated, Trials, calibrate, enough
from nuclei_unet.errors import InputError
from nuclei_unet.evaluation import metrics, scores
from nuclei_unet.files import fresh_file
from nuclei_unet.images import normalize, resize, to_rgb
from nuclei_unet.labels import renumber
from nuclei_unet.network import keras_file
from nuclei_unet.network.metadata import Adaptation, Metadata
from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork
from nuclei_unet.prediction import models
from nuclei_unet.prediction.predictor import Predictor, passes
from nuclei_unet.sample import ArraySample, Sample
from nuclei_unet.settings import NormalizeSettings, PredictSettings, TrainSettings

# By how much a more elaborate model must beat a simpler one, mean dsb_score: less may be chance.
MARGIN = 0.005
# Steps of the fine-tuning after which it may end.
STOPS = (40, 80, 120)
# From the simplest on.
PLAIN, OFFSET, CALIBRATED, FINE_TUNED = ROWS = ("plain", "offset only", "calibrated", "fine-tuned")
MOST_IMAGES = 100


@dataclass(frozen=True, eq=False)
class Adapted:
    """What came of an adaptation.

    Attributes
    ----------
    rows : {plain, offset only, calibrated, fine-tuned: {dsb_score, ap50, iou}}; what was not tried is missing
    chosen : one of these names; plain if nothing helped
    cross_validated : whether each image was scored by a model that was adapted to others; else there were too few
    model, metadata : the adapted network, not compiled, and its metadata; None if nothing helped
    """

    rows: dict[str, dict[str, float]]
    chosen: str
    cross_validated: bool
    model: keras.Model | None
    metadata: Metadata | None

    @property
    def helped(self) -> bool:
        """Whether there is an adapted model."""
        return self.model is not None

    def save(self, path: Path) -> None:
        """Write the adapted model; the same one gives the same bytes. Raises ValueError if there is none."""
        if self.model is None or self.metadata is None:
            raise ValueError("the adaptation did not help, so there is no adapted model")
        with fresh_file(path) as file:
            keras_file.save(self.model, file, self.metadata)


def annotated(
    name: str, image: np.ndarray, labels: np.ndarray, look: NormalizeSettings, *, scale: float = 1.0
) -> ArraySample:
    """Return an image with its annotation as `adapt` takes it.

    Parameters
    ----------
    name : unique among the images
    image : any grey or colour array, as `Segmenter` takes it
    labels : its label image (H, W), 0 = background
    look : of the model's metadata, `normalize`
    scale : how much the network sees the image enlarged, as in `Segmenter`

    Raises
    ------
    InputError : not an image, of another size than the labels, or more than 65,535 nuclei
    """
    if labels.shape != image.shape[:2]:
        (height, width), (high, wide) = image.shape[:2], labels.shape
        raise InputError(f"{name}: the image has {height} x {width} pixels, but its labels {high} x {wide}")
    try:
        truth = renumber(labels)
    except ValueError as error:
        raise InputError(f"{name}: {error}; cut the image into parts") from None
    if scale != 1:
        image = resize(to_rgb(image), [max(round(side * scale), 1) for side in image.shape[:2]])
    return ArraySample(name, "train", "annotated", normalize(image, look), truth)


def adapt(
    samples: Sequence[Sample],
    *,
    model: Path | str | None = None,
    replay: Sequence[Sample] = (),
    frames: Sequence[Hashable] | None = None,
    calibrate_only: bool = False,
    stops: Sequence[int] = STOPS,
    settings: Callable[[TrainSettings], TrainSettings] = lambda default: default,
    seed: int = 2018,
    precision: str = "auto",
    threads: int | None = None,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> Adapted:
    """Adapt a model to annotated images, and measure whether that helps.

    Parameters
    ----------
    samples : 1 to 100 images with their label images; see `annotated`. Some may be without nuclei
    model : see `nuclei_unet.prediction.models.load`; None: the pretrained one
    replay : images that the model was trained on, normalized in the same way; half of each batch is drawn from them
    frames : what each sample is cut from; samples of one frame are never adapted to and scored at the same time. None:
        each is from another one
    calibrate_only : leave the weights as they are
    stops : numbers of steps after which the fine-tuning may end
    settings : changes the settings of the fine-tuning
    seed, precision, threads : of the computation. Equal calls on equal machines give equal bits
    progress : called with the work done and all work

    Raises
    ------
    InputError : no sample or too many, no nucleus in any, or a model that cannot be adapted
    """
    if not 1 <= len(samples) <= MOST_IMAGES:
        raise InputError(f"{len(samples)} annotated images; adapt takes 1 to {MOST_IMAGES}")
    counts = [folds.nuclei_in(sample.labels) for sample in samples]
    if not any(counts):
        raise InputError("none of the label images has a nucleus; there is nothing to adapt to")
    network, metadata, digest = models.load_weights(model, threads=threads)
    metadata, predict = metadata, metadata.predict
    if predict is None:
        raise InputError(f"{model}: was trained but not evaluated, so it does not say how its maps become nuclei")

    pieces, groups = list(samples), list(range(len(samples)) if frames is None else frames)
    if len(pieces) == 1:
        pieces = folds.halves(pieces[0])
        groups = list(range(len(pieces)))
    place = np.array(folds.folds(groups, [folds.nuclei_in(piece.labels) for piece in pieces]))
    cross_validated = bool(place.max() > 0)
    # Each fold with the images that its models are adapted to: all others.
    splits = [
        (np.flatnonzero(place == fold), np.flatnonzero((place != fold) | (not cross_validated)))
        for fold in range(place.max() + 1)
    ]
    parts = [folds.scored_part(piece) for piece in pieces]
    train = settings(finetune.settings_for(metadata, seed, threads or 2, max(stops)))
    engine = TensorFlowNetwork(network, metadata.network, precision)
    views, once = (Predictor(engine, metadata.network, s) for s in (predict, predict.with_views("fast")))
    fine = cross_validated and not calibrate_only
    work = _Work(progress, _costs(parts, predict, train, stops, len(splits), fine))

    plain = [_seen(views, part, work) for part in parts]
    full, steps, weights = enough(plain), 0, network.get_weights()
    trials = Trials(plain)
    ways = {OFFSET: (trials, False)} | ({CALIBRATED: (trials, True)} if full and cross_validated else {})
    tuner = finetune.Finetuner(weights, train, engine.channels, replay) if fine else None

    def tune(which: Sequence[Sample], until: Sequence[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
        return tuner.run(which, until, lambda: work.add(work.of_step(train)))

    if fine:
        tuned, steps = _cross_tuned(engine, views, once, pieces, parts, plain, splits, stops, tune, work)
        if steps:
            ways[FINE_TUNED] = Trials(tuned), full
    rows = {PLAIN: _row([trials.counts(index, predict) for index in range(len(parts))])}
    for name, (of, search) in ways.items():
        counted: dict[int, scores.Counts] = {}
        for held, others in splits:
            found = calibrate(of, predict, others, search=search)
            counted |= {index: of.counts(index, found) for index in held}
        rows[name] = _row([counted[index] for index in sorted(counted)])
    chosen = choose(rows)

    if chosen != PLAIN:
        of, search = ways[chosen]
        final = calibrate(of, predict, range(len(parts)), search=search)
        if chosen == FINE_TUNED:
            ((_, weights),) = tune(samples, [steps])
            network.set_weights(weights)
        else:
            steps = 0
        # What helped on parts of the images may change nothing on all of them.
        if not steps and final == predict:
            chosen = PLAIN
    work.finish()
    if chosen == PLAIN:
        return Adapted(rows, PLAIN, cross_validated, None, None)
    adaptation = Adaptation(
        images=len(samples),
        nuclei=sum(counts),
        data=_digest(samples),
        steps=steps,
        before=rows[PLAIN]["dsb_score"],
        after=rows[chosen]["dsb_score"],
        cross_validated=cross_validated,
        diameters=metadata.diameters,
    )
    made = metadata.model_copy(update={"predict": final, "parent": digest, "adapted": adaptation})
    return Adapted(rows, chosen, cross_validated, network, made)


def choose(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return the name of the best row by dsb_score; a later one must beat those before it by more than `MARGIN`."""
    best = PLAIN
    for name in (name for name in ROWS if name in rows):
        if rows[name]["dsb_score"] > rows[best]["dsb_score"] + MARGIN:
            best = name
    return best


def _cross_tuned(
    engine: TensorFlowNetwork,
    views: Predictor,
    once: Predictor,
    pieces: Sequence[Sample],
    parts: Sequence[Sample],
    plain: Sequence[Annotated],
    splits: Sequence[tuple[np.ndarray, np.ndarray]],
    stops: Sequence[int],
    tune: Callable,
    work: "_Work",
) -> tuple[list[Annotated], int]:
    """Fine-tune on all folds but one; return what these networks see in that one, and the best number of steps.

    The images of a fold are seen after as many steps as are best for the images of the other folds. How good a number
    of steps is, is measured with one view of each image, which is much faster.
    """
    kept: dict[tuple[int, int], list[np.ndarray]] = {}
    found = np.zeros((len(stops) + 1, len(parts)))  # dsb_score of each image after 0 and each of the stops
    found[0] = [_score_once(once, part, work) for part in parts]
    for fold, (held, others) in enumerate(splits):
        for row, (_, weights) in enumerate(tune([pieces[index] for index in others], stops), start=1):
            kept[fold, row] = weights
            engine.set_weights(weights)
            found[row, held] = [_score_once(once, parts[index], work) for index in held]
    tuned = list(plain)
    for fold, (held, others) in enumerate(splits):
        row = int(found[:, others].mean(axis=1).argmax())
        if row:
            engine.set_weights(kept[fold, row])
            for index in held:
                tuned[index] = _seen(views, parts[index], work)
    return tuned, (0, *stops)[int(found.mean(axis=1).argmax())]


def _seen(views: Predictor, part: Sample, work: "_Work") -> Annotated:
    image, shape = part.image, part.labels.shape
    # Half the memory; a level of 0.5 is exact to 0.0005.
    maps = {name: values.astype(np.float16) for name, values in views.maps(image, shape).items()}
    work.add(work.of_views(part, views.views))
    return Annotated(maps, resize(image, shape), part.labels)


def _score_once(once: Predictor, part: Sample, work: "_Work") -> float:
    labels = once.labels(part.image, part.labels.shape)
    work.add(work.of_views(part, once.views))
    return metrics.dsb_score(metrics.instance_counts(part.labels, labels))


def _row(counted: Sequence[scores.Counts]) -> dict[str, float]:
    return scores.values(scores.main_ones(), counted)


def _digest(samples: Sequence[Sample]) -> str:
    """Return one SHA-256 over names, pixels and labels."""
    digest = hashlib.sha256()
    for sample in samples:
        for array in (sample.image, sample.labels):
            digest.update(f"{sample.image_id!r} {array.shape} {array.dtype}\n".encode() + array.tobytes())
    return digest.hexdigest()


class _Work:
    """Counts the work that is done, in megapixels that pass the network."""

    def __init__(self, report: Callable[[float, float], None], total: float):
        self.report, self.total, self.done = report, total, 0.0

    def add(self, amount: float) -> None:
        self.done = min(self.done + amount, self.total)
        self.report(self.done, self.total)

    def finish(self) -> None:
        self.add(self.total)

    @staticmethod
    def of_views(part: Sample, views: PredictSettings) -> float:
        height, width = part.image.shape[:2]
        return height * width / 1e6 * sum(scale**2 for scale, _ in passes(views))

    @staticmethod
    def of_step(train: TrainSettings) -> float:
        # Forwards, and backwards for the weights and for the layer before.
        return 3 * train.batch_size * train.crop_size**2 / 1e6


def _costs(
    parts: Sequence[Sample],
    predict: PredictSettings,
    train: TrainSettings,
    stops: Sequence[int],
    n_folds: int,
    fine: bool,
) -> float:
    """Return all work that an adaptation may take."""
    views, once = (sum(_Work.of_views(part, s) for part in parts) for s in (predict, predict.with_views("fast")))
    if not fine:
        return views
    return 2 * views + (len(stops) + 1) * once + (n_folds + 1) * max(stops) * _Work.of_step(train)
