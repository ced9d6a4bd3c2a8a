"""The score of one image."""

import numpy as np

from nuclei_unet.labels import resize_labels
from pipeline import evaluate
from pipeline.report.scores import row
from tests.pipeline.examples import TWO, OneMap, sample


def test_resized_images_are_scored_at_native_size(settings):
    small = resize_labels(TWO.astype(np.uint16), (2, 10))
    resized = sample("small", TWO, image=np.where(small > 0, 255, 0).astype(np.uint8))
    predicted, item = evaluate.score(resized, OneMap(settings.evaluate))
    assert predicted.shape == TWO.shape
    assert row(item)["iou"] == 1


def test_an_image_without_nuclei_scores_one_if_nothing_is_found(settings):
    settings = settings.evaluate
    _, item = evaluate.score(sample("empty", np.zeros((16, 16))), OneMap(settings))
    assert row(item)["dsb_score"] == 1
