"""Choose how maps become nuclei from a few annotated images: first where their annotators draw outlines."""

from collections.abc import Sequence

import numpy as np

from nuclei_unet.adaptation.study import Study, Trials, Variant
from nuclei_unet.evaluation.scores import Counts
from nuclei_unet.settings import PredictSettings

# By how much the mean dsb_score must rise for a setting to change.
GAIN = 0.002
FURTHEST = 4.0  # px, of an offset
BASELINE, OFFSET, CALIBRATED = "baseline", "offset only", "calibrated"


def baseline(study: Study) -> Variant:
    """Change nothing: the model as it is, which the ways of adapting it must beat."""
    predict = study.metadata.chosen
    counts = [study.trials.counts(index, predict) for index in range(len(study.parts))]
    return Variant(BASELINE, counts, lambda: (predict, study.data))


def calibrated(study: Study, *, search: bool) -> Variant:
    """Move all outlines in or out; with `search`, choose threshold, prominence and smallest area, too."""
    trials, predict = study.trials, study.metadata.chosen
    everything = range(len(study.parts))
    return Variant(
        CALIBRATED if search else OFFSET,
        cross_validated(study, trials, search=search),
        lambda: (calibrate(trials, predict, everything, search=search), study.data),
    )


def cross_validated(study: Study, trials: Trials, *, search: bool) -> list[Counts]:
    """Return the counts of each image of `trials` with the settings that score best on the images of other folds."""
    counts: dict[int, Counts] = {}
    for held_out, others in study.splits:
        chosen = calibrate(trials, study.metadata.chosen, others, search=search)
        counts |= {index: trials.counts(index, chosen) for index in held_out}
    return [counts[index] for index in sorted(counts)]


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
    scores = [trials.score(candidate, which) for candidate in tried]
    best = int(np.argmax(scores))
    return tried[best] if scores[best] > scores[0] + GAIN else settings
