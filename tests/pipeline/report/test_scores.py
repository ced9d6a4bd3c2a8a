"""Scores of whole splits, from images worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from pipeline import evaluate
from pipeline.report.scores import ap_by_threshold, by_kind, flat_metrics, row, summarise
from tests.pipeline.examples import TWO, OneMap, sample

MERGED = np.where(np.repeat(np.repeat([[1, 1, 1, 1, 1]], 4, axis=0), 4, axis=1), 255, 0).astype(np.uint8)


@pytest.fixture
def scores(settings):
    settings = settings.evaluate.model_copy(update={"min_area": 1})
    found, merged = sample("found", TWO), sample("merged", TWO, image=MERGED, kind="grey-tissue")
    return [evaluate.score(one, OneMap(settings), settings)[1] for one in (found, merged)]


def test_summary_averages_images_and_pools_nuclei(scores):
    summary = summarise(scores)
    assert summary["n_images"] == 2
    # One image is perfect; of the other one nothing matches: 80 px predicted, 32 or 64 of them true.
    assert summary["instance"]["dsb_score"] == 0.5
    assert summary["instance"]["ap50"] == pytest.approx(2 / (2 + 1 + 2))
    assert summary["instance"]["pq"] == pytest.approx(2 / (2 + (1 + 2) / 2), abs=1e-6)
    assert summary["instance"]["count_error"] == 0.25
    assert summary["pixel"]["iou"] == pytest.approx((1 + 64 / 80) / 2)
    assert summary["pixel_pooled"]["iou"] == pytest.approx(128 / 144, abs=1e-6)
    assert summary["pixel"]["recall"] == 1


def test_tables_say_the_same_as_the_summary(scores):
    images = pd.DataFrame([row(item) for item in scores])
    assert images.dsb_score.mean() == summarise(scores)["instance"]["dsb_score"]
    assert list(images.predicted_nuclei) == [2, 1]
    kinds = by_kind(images)
    assert list(kinds.kind) == ["grey-tissue", "small-fluorescent"]
    assert list(kinds.dsb_score) == [0, 1]
    curves = ap_by_threshold({"test": scores})
    assert list(curves.columns) == ["iou_threshold", "test_unet", "test_otsu"]
    assert curves.test_unet.iloc[0] == pytest.approx(0.4)


def test_flat_metrics_are_numbers_by_path(scores):
    flat = flat_metrics({"test": summarise(scores)})
    assert flat["test/instance/dsb_score"] == 0.5
    assert all(isinstance(value, float) for value in flat.values())
