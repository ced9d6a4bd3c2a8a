"""Scores of one image and of many, worked out by hand."""

import numpy as np
import pytest

from nuclei_unet.evaluation import scores
from nuclei_unet.evaluation.metrics import InstanceCounts, PixelCounts
from nuclei_unet.evaluation.scores import Counts, count

PERFECT = Counts(PixelCounts(64, 0, 0), InstanceCounts(2, 2, (1.0, 1.0)))
MERGED = Counts(PixelCounts(64, 16, 0), InstanceCounts(2, 1, ()))


def test_count_takes_the_truth_first():
    found = count(np.array([[1, 1, 0, 0]]), np.array([[7, 7, 7, 0]], np.uint32))
    assert found == Counts(PixelCounts(2, 1, 0), InstanceCounts(1, 1, (2 / 3,)))


def test_a_set_of_images_averages_some_scores_and_pools_others():
    found = scores.of_images([PERFECT, MERGED])
    assert tuple(found) == scores.GROUPS
    assert found["instance"]["dsb_score"] == 0.5 and found["instance"]["count_error"] == 0.25
    assert found["instance"]["ap50"] == pytest.approx(2 / (2 + 1 + 2))
    assert found["instance"]["pq"] == pytest.approx(2 / (2 + (1 + 2) / 2), abs=1e-6)
    assert found["pixel"]["iou"] == pytest.approx((1 + 64 / 80) / 2) and found["pixel"]["recall"] == 1
    assert found["pixel_pooled"]["iou"] == pytest.approx(128 / 144, abs=1e-6)
    assert found["instance"]["dsb_score_low"] == 0 and found["instance"]["dsb_score_high"] == 1


def test_one_image_has_its_scores_by_column():
    found = scores.of_image(MERGED)
    assert found["dsb_score"] == 0 and found["count_error"] == 0.5 and found["precision"] == 0.8
    assert {score.column for score in scores.SCORES if score.column} == set(found)


def test_scores_are_listed_group_by_group():
    groups = [score.group for score in scores.listed()]
    assert groups == sorted(groups, key=scores.GROUPS.index) and len(groups) == len(scores.SCORES)
    assert [score.path for score in scores.main_ones()] == ["instance/dsb_score", "instance/ap50", "pixel/iou"]
