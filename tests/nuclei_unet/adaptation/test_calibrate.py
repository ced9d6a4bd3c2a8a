"""Settings chosen from a few annotated images."""

import numpy as np
import pytest

from nuclei_unet.adaptation.calibrate import calibrate
from nuclei_unet.adaptation.study import Annotated, Trials, outline_style
from nuclei_unet.prediction.instances import label_nuclei
from tests.nuclei_unet.nuclei import drawn

CIRCLES = [(22.3, 22.8, 9.2), (22.6, 70.1, 12.4), (66.4, 30.7, 13.7), (70.2, 74.5, 10.1)]


def circles(change=0.0, at=CIRCLES):
    return drawn((96, 96), *((row, column, radius + change) for row, column, radius in at))


def seen(truth, at=CIRCLES, threshold_at=0.0, specks=()):
    """Return an image whose foreground map is 0.5 at the circles' outlines and falls by 0.1 a pixel outwards."""
    places = np.indices((96, 96))
    outside = np.min([np.hypot(*(places - np.reshape(c[:2], (2, 1, 1)))) - c[2] for c in at], axis=0)
    foreground = np.clip(0.5 - (outside + threshold_at) / 10, 0, 1).astype(np.float16)
    for row, column in specks:
        foreground[row : row + 7, column : column + 7] = 1
    return Annotated({"foreground": foreground}, np.zeros((96, 96), np.uint8), truth, 1.0)


@pytest.mark.parametrize("change", [-2, -1, 0, 0.5, 1, 2])
def test_the_style_is_how_far_outlines_lie_apart(change):
    assert outline_style(circles(change), circles()) == pytest.approx(change, abs=0.15)
    # Numbers do not matter.
    assert outline_style(circles(change) * 7, circles()) == outline_style(circles(change), circles())


def test_where_neighbours_touch_there_is_no_outline_and_without_a_match_no_style():
    truth, predicted = np.zeros((2, 40, 60), np.uint16)
    truth[5:35, 5:30], truth[5:35, 30:55] = 1, 2
    predicted[7:33, 7:30], predicted[7:33, 30:53] = 1, 2
    assert outline_style(truth, predicted) == pytest.approx(2 * 4 / np.pi, rel=0.01)
    assert outline_style(circles(), np.zeros((96, 96), np.uint16)) is None
    assert outline_style(circles(), np.roll(circles(), 24, axis=1)) is None
    everything = np.ones((9, 9), np.uint16)
    assert outline_style(everything, everything) is None


@pytest.mark.parametrize("wide", [-1.5, 2.3])
def test_an_annotator_who_draws_wide_or_narrow_is_found(wide, evaluate):
    settings = evaluate(outline_range=0.0)
    trials = Trials([seen(circles(wide)), seen(circles(wide))])
    found = calibrate(trials, settings, [0, 1], search=False)
    assert found.outline_offset == pytest.approx(wide, abs=0.3)
    assert found == settings.model_copy(update={"outline_offset": found.outline_offset})
    assert trials.score(found, [0, 1]) > trials.score(settings, [0, 1]) + 0.1
    assert calibrate(Trials(trials.images), settings, [0, 1], search=False) == found


@pytest.mark.parametrize(("which", "offset"), [([0, 1, 2], 1), ([0], 1), ([2], -4)])
def test_the_given_images_count_and_one_drawn_otherwise_does_not_decide(which, offset, evaluate):
    trials = Trials([seen(circles(1)), seen(circles(1)), seen(circles(-4))])
    assert calibrate(trials, evaluate(), which, search=False).outline_offset == pytest.approx(offset, abs=0.4)


def test_the_threshold_and_the_smallest_area_are_found(evaluate):
    # A network that is never surer than 0.4 inside of small nuclei, and specks of 49 px that are none.
    specks = [(2, 44), (86, 50)]
    settings = evaluate(min_area=30)
    found = calibrate(Trials([seen(circles(), specks=specks)] * 3), settings, range(3), search=True)
    assert 49 < found.min_area < 250 and found.foreground_threshold == 0.5
    low = [seen(circles(), threshold_at=1.0)] * 3
    found = calibrate(Trials(low), settings, range(3), search=True)
    better = label_nuclei({"foreground": low[0].maps["foreground"].astype(np.float32)}, found)
    assert outline_style(circles(), better) == pytest.approx(0, abs=0.3)


def test_images_without_nuclei_are_valid(evaluate):
    nothing = np.zeros((96, 96), np.uint16)
    empty = Annotated({"foreground": np.zeros((96, 96), np.float16)}, np.zeros((96, 96), np.uint8), nothing, 1.0)
    trials = Trials([empty, seen(circles(1))])
    assert trials.score(evaluate(), [0]) == 1 and trials.style(evaluate(), [0]) == 0
    assert calibrate(trials, evaluate(), [0, 1], search=False).outline_offset == pytest.approx(1, abs=0.3)
