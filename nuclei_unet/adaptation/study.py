"""What the ways of adapting a model share: what each of them gets and returns, and trials of settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nuclei_unet.adaptation import Settings
from nuclei_unet.evaluation import metrics, scores
from nuclei_unet.images import resize
from nuclei_unet.labels import renumber
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.prediction.predictor import Network, Predictor
from nuclei_unet.sample import Sample
from nuclei_unet.settings import PredictSettings

# With fewer annotations only the offset of outlines is chosen: one number, measured on all of them. Others would be
# chosen by chance.
LEAST_IMAGES, LEAST_NUCLEI = 3, 50


@dataclass(frozen=True, eq=False)
class Annotated:
    """An annotated image and what a network sees in it.

    maps : {target: float16 or float32 (H, W)}
    image : uint8 (H, W) or (H, W, 3)
    truth : label image, uint16 (H, W)
    scale : at which the network saw the image
    """

    maps: dict[str, np.ndarray]
    image: np.ndarray
    truth: np.ndarray
    scale: float


class Trials:
    """Scores of the same annotated images under any settings; each is computed once."""

    def __init__(self, images: Sequence[Annotated]):
        self.images = images
        self._done: dict[tuple[int, PredictSettings], tuple[scores.Counts, float | None]] = {}

    def _of(self, index: int, settings: PredictSettings) -> tuple[scores.Counts, float | None]:
        key = index, settings
        if key not in self._done:
            annotated = self.images[index]
            maps = {name: values.astype(np.float32, copy=False) for name, values in annotated.maps.items()}
            labels = label_nuclei(maps, settings, annotated.image, enlarged=1 / annotated.scale)
            style = outline_style(annotated.truth, labels)
            self._done[key] = scores.count(annotated.truth, labels), style and style * annotated.scale
        return self._done[key]

    def counts(self, index: int, settings: PredictSettings) -> scores.Counts:
        """Return what the truth and the prediction of an image share."""
        return self._of(index, settings)[0]

    def score(self, settings: PredictSettings, which: Sequence[int]) -> float:
        """Return the mean dsb_score of some images."""
        return float(np.mean([metrics.dsb_score(self.counts(index, settings).instances) for index in which]))

    def style(self, settings: PredictSettings, which: Sequence[int]) -> float:
        """Return the outline style of some images, px as the network sees them.

        It is the median, so one image of another style does not decide.
        """
        styles = [style for index in which if (style := self._of(index, settings)[1]) is not None]
        return float(np.median(styles)) if styles else 0.0


def outline_style(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    """Return by how many pixels the true outlines of a label image (H, W) lie outside of the predicted ones.

    Outlines that all move outwards by a little add that times their length to the area. So over the nuclei that match
    (IoU above 0.5), the style is the difference of all areas divided by the mean length of all outlines. Only outlines
    against the background count. None if nothing matches, or all outlines that do are those of neighbours.
    """
    truth, predicted = renumber(truth), renumber(predicted)
    pairs = metrics.overlaps(truth, predicted).of_nuclei()
    matched = pairs.ious() > 0.5
    true, ours = pairs.true[matched], pairs.predicted[matched]
    length = (_outline_lengths(truth)[true].sum() + _outline_lengths(predicted)[ours].sum()) / 2
    if not length:
        return None
    return float((pairs.true_areas[true].sum() - pairs.predicted_areas[ours].sum()) / length)


def _outline_lengths(labels: np.ndarray) -> np.ndarray:
    """Return the length of each nucleus' outline against the background, px, float (n + 1,)."""
    count = int(labels.max()) + 1
    sides = np.zeros(count)
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        for inside, outside in ((one, other), (other, one)):
            sides += np.bincount(inside[(inside > 0) & (outside == 0)], minlength=count)
    # Sides of pixels are longer than the line that they stand for, by 4 / pi on average over its directions.
    return sides * np.pi / 4


@dataclass(frozen=True, eq=False)
class Study:
    """What every way of adapting gets.

    Attributes
    ----------
    data, metadata : content of the model's ONNX file, and what it says about itself
    samples, replay : the annotated images, as the network sees them, and images that it was trained on, or none
    pieces, parts : the samples, or the halves of the only one, and what is scored of each of them
    splits : for each fold, the numbers of its pieces, and of the others: models are adapted to these, scored on those
    trials : what the model sees in the parts
    settings, on_step : of the adaptation; called after each step of training
    """

    data: bytes
    metadata: Metadata
    samples: Sequence[Sample]
    pieces: Sequence[Sample]
    parts: Sequence[Sample]
    splits: Sequence[tuple[np.ndarray, np.ndarray]]
    trials: Trials
    replay: Sequence[Sample]
    settings: Settings
    on_step: Callable[[], None]

    @property
    def cross_validated(self) -> bool:
        """Whether the images that a model is adapted to are others than those that it is scored on."""
        return len(self.splits) > 1

    @property
    def enough(self) -> bool:
        """Whether there are enough annotations to choose more than the offset of outlines."""
        nuclei = sum(int(part.labels.max()) for part in self.parts)
        return len(self.parts) >= LEAST_IMAGES and nuclei >= LEAST_NUCLEI


@dataclass(frozen=True, eq=False)
class Variant:
    """What every way of adapting returns.

    `counts` are those of each part of the study, by settings and weights that were chosen on others. `finish` chooses
    them on all images; it returns the settings and the content of the ONNX file with the weights.
    """

    name: str
    counts: Sequence[scores.Counts]
    finish: Callable[[], tuple[PredictSettings, bytes]]
    steps: int = 0

    @property
    def scores(self) -> dict[str, float]:
        """The main scores, {dsb_score, ap50, iou: value}."""
        return scores.values(scores.main_ones(), self.counts)


def see(network: Network, metadata: Metadata, part: Sample) -> Annotated:
    """Predict the maps of an annotated image as the model's metadata say."""
    shape = part.labels.shape
    predictor = Predictor(network, metadata)
    scale = predictor.scale(predictor.diameter_of(part.image).px)
    maps = predictor.maps(part.image, scale, shape)
    # Half the memory; a level of 0.5 is exact to 0.0005.
    halved = {name: values.astype(np.float16) for name, values in maps.items()}
    return Annotated(halved, resize(part.image, shape), part.labels, scale)
