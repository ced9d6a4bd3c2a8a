"""Choose how maps become nuclei from a few annotated images: first where their annotators draw outlines."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nuclei_unet.evaluation import metrics, scores
from nuclei_unet.labels import renumber
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.settings import PredictSettings

# By how much the mean dsb_score must rise for a setting to change.
GAIN = 0.002
# With fewer annotations only the offset is chosen: one number, measured on all outlines. The others would be chosen by
# chance.
LEAST_IMAGES, LEAST_NUCLEI = 3, 50
FURTHEST = 4.0  # px, of an offset


@dataclass(frozen=True, eq=False)
class Annotated:
    """An annotated image and what a network sees in it.

    maps : {target: float16 or float32 (H, W)}
    image : what the network saw, uint8 (H, W) or (H, W, 3)
    truth : label image, uint16 (H, W)
    """

    maps: dict[str, np.ndarray]
    image: np.ndarray
    truth: np.ndarray


def outline_style(truth: np.ndarray, predicted: np.ndarray) -> float | None:
    """Return by how many pixels the true outlines of a label image (H, W) lie outside of the predicted ones.

    Outlines that all move outwards by a little add that times their length to the area. So over the nuclei that match
    (IoU above 0.5), the style is the difference of all areas divided by the mean length of all outlines. Only outlines
    against the background count. None if nothing matches, or all outlines that do are those of neighbours.
    """
    truth, predicted = renumber(truth), renumber(predicted)
    found = metrics.overlaps(truth, predicted).of_nuclei()
    matched = found.ious() > 0.5
    true, ours = found.true[matched], found.predicted[matched]
    length = (_outline_lengths(truth)[true].sum() + _outline_lengths(predicted)[ours].sum()) / 2
    if not length:
        return None
    return float((found.true_areas[true].sum() - found.predicted_areas[ours].sum()) / length)


def _outline_lengths(labels: np.ndarray) -> np.ndarray:
    """Return the length of each nucleus' outline against the background, px, float (n + 1,)."""
    count = int(labels.max()) + 1
    sides = np.zeros(count)
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        for inside, outside in ((one, other), (other, one)):
            sides += np.bincount(inside[(inside > 0) & (outside == 0)], minlength=count)
    # Sides of pixels are longer than the line that they stand for, by 4 / pi on average over its directions.
    return sides * np.pi / 4


class Trials:
    """Scores of the same annotated images under any settings; each is computed once."""

    def __init__(self, images: Sequence[Annotated]):
        self.images = images
        self._done: dict[tuple[int, PredictSettings], tuple[scores.Counts, float | None]] = {}

    def _of(self, index: int, settings: PredictSettings) -> tuple[scores.Counts, float | None]:
        key = index, settings
        if key not in self._done:
            one = self.images[index]
            maps = {name: values.astype(np.float32, copy=False) for name, values in one.maps.items()}
            labels = label_nuclei(maps, settings, one.image)
            self._done[key] = scores.count(one.truth, labels), outline_style(one.truth, labels)
        return self._done[key]

    def counts(self, index: int, settings: PredictSettings) -> scores.Counts:
        """Return what the truth and the prediction of an image share."""
        return self._of(index, settings)[0]

    def score(self, settings: PredictSettings, which: Sequence[int]) -> float:
        """Return the mean dsb_score of some images."""
        return float(np.mean([metrics.dsb_score(self.counts(index, settings).instances) for index in which]))

    def style(self, settings: PredictSettings, which: Sequence[int]) -> float:
        """Return the outline style of some images, px: the median, so one image drawn otherwise does not decide."""
        styles = [style for index in which if (style := self._of(index, settings)[1]) is not None]
        return float(np.median(styles)) if styles else 0.0


def enough(images: Sequence[Annotated]) -> bool:
    """Tell whether there are enough annotations to choose more than the offset."""
    return len(images) >= LEAST_IMAGES and sum(len(np.unique(one.truth)) - 1 for one in images) >= LEAST_NUCLEI


def calibrate(trials: Trials, settings: PredictSettings, which: Sequence[int], *, search: bool) -> PredictSettings:
    """Return the settings that score best on some of the images of `trials`; the same call gives the same settings.

    The outline offset is measured. With `search`, threshold, prominence, smallest area and offset then take other
    values, one after the other. Whatever does not raise the mean dsb_score by more than `GAIN` stays as it is.
    """
    best = settings
    # Nuclei that match only once their outlines have moved say more about the style.
    for _ in range(2):
        offset = best.outline_offset + trials.style(best, which)
        best = _better(trials, which, best, [{"outline_offset": _rounded(offset)}])
    if not search:
        return best
    threshold, prominence, area = best.foreground_threshold, best.prominence, best.min_area
    grid = (
        [{"foreground_threshold": round(threshold + step, 4)} for step in (-0.1, -0.05, 0.05, 0.1)
         if 0.05 <= threshold + step <= 0.95],
        [{"prominence": round(prominence * factor, 4)} for factor in (0.5, 1.5, 2, 3) if prominence * factor < 1],
        [{"min_area": value} for value in dict.fromkeys((0, area // 2, 2 * area, 4 * area, 30)) if value != area],
    )  # fmt: skip
    for changes in grid:
        best = _better(trials, which, best, changes)
    shifted = [{"outline_offset": _rounded(best.outline_offset + step)} for step in (-0.5, 0.5)]
    return _better(trials, which, best, shifted)


def _rounded(offset: float) -> float:
    # 0.1 px is as near as annotators are to themselves.
    return round(float(np.clip(offset, -FURTHEST, FURTHEST)), 1) + 0.0


def _better(
    trials: Trials, which: Sequence[int], settings: PredictSettings, changes: Sequence[dict[str, float]]
) -> PredictSettings:
    """Return the settings with the change that gains most; as they are if none gains enough."""
    tried = [settings, *(settings.model_copy(update=change) for change in changes)]
    found = [trials.score(one, which) for one in tried]
    best = int(np.argmax(found))
    return tried[best] if found[best] > found[0] + GAIN else settings
