"""Scores of label images small enough to count by hand."""

import numpy as np
import pytest

from nuclei_unet.evaluation import metrics
from nuclei_unet.evaluation.metrics import InstanceCounts, PixelCounts


def row(text):
    """Return a label image of one row, a digit a pixel."""
    return np.array([[int(digit) for digit in text]], np.uint16)


def counts(truth, predicted):
    return metrics.instance_counts(row(truth), row(predicted))


def test_pixel_counts_and_scores():
    found = metrics.pixel_counts(row("0011110"), row("0100220"))
    assert found == PixelCounts(true_positive=2, false_positive=1, false_negative=2)
    assert metrics.pixel_scores(found) == {"iou": 2 / 5, "dice": 4 / 7, "precision": 2 / 3, "recall": 1 / 2}


@pytest.mark.parametrize(
    ("truth", "predicted", "scores"),
    [
        ("00", "00", [1, 1, 1, 1]),
        ("11", "22", [1, 1, 1, 1]),
        ("00", "01", [0, 0, 0, 1]),
        ("01", "00", [0, 0, 1, 0]),
        ("10", "01", [0, 0, 0, 0]),
    ],
)
def test_pixel_scores_at_the_edges(truth, predicted, scores):
    assert list(metrics.pixel_scores(metrics.pixel_counts(row(truth), row(predicted))).values()) == scores


def test_gaps_in_labels_and_images_without_background():
    with_gaps = metrics.overlap_matrix(row("0553330"), row("0099777"))
    # In ascending order: truth 3 and 5, predicted 7 and 9.
    np.testing.assert_array_equal(with_gaps, [[1, 1, 0], [0, 2, 1], [1, 0, 1]])
    assert counts("0553330", "0099777") == counts("0112220", "0022111")
    np.testing.assert_array_equal(metrics.overlap_matrix(row("1122"), row("3344")), [[0, 0, 0], [0, 2, 0], [0, 0, 2]])
    np.testing.assert_array_equal(metrics.overlap_matrix(row("11"), row("00")), [[0], [2]])


def test_ious_of_the_pairs_that_touch():
    # 1 shares 1 pixel of 3 with prediction 1; 2 shares 1 of 4 with it and 2 of 4 with prediction 2.
    found = metrics.overlaps(row("0112220"), row("0011222")).of_nuclei()
    assert list(zip(found.true.tolist(), found.predicted.tolist(), strict=True)) == [(1, 1), (2, 1), (2, 2)]
    np.testing.assert_allclose(found.ious(), [1 / 3, 1 / 4, 2 / 4])
    assert metrics.overlaps(row("00"), row("12")).of_nuclei().ious().size == 0
    found = metrics.overlaps(np.zeros((0, 5), np.uint16), np.zeros((0, 5), np.uint16))
    assert found.pixels.size == 0 and found.true_areas.size == found.predicted_areas.size == 1


def test_a_hundred_thousand_nuclei_need_no_table_of_all_pairs():
    truth = np.arange(1, 90_001, dtype=np.uint32).reshape(300, 300).repeat(2, axis=0)
    assert metrics.instance_counts(truth, truth * 40_000) == InstanceCounts(90_000, 90_000, (1.0,) * 90_000)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((4, 4), (4, 5)), ((4,), (4,)), ((2, 2, 1), (2, 2, 1))])
def test_other_shapes_are_refused(shapes):
    truth, predicted = (np.ones(shape, np.uint16) for shape in shapes)
    for function in (metrics.pixel_counts, metrics.overlap_matrix, metrics.instance_counts):
        with pytest.raises(ValueError, match="2-D and of the same shape"):
            function(truth, predicted)


@pytest.mark.parametrize(
    ("truth", "predicted", "n_truth", "n_predicted", "ious"),
    [
        ("0110220", "0220110", 2, 2, (1, 1)),  # perfect, whatever the numbers
        ("1122", "3344", 2, 2, (1, 1)),
        ("0000", "0000", 0, 0, ()),
        ("0000", "0110", 0, 1, ()),
        ("0110", "0000", 1, 0, ()),
        ("1111110", "1111220", 1, 2, (4 / 6,)),  # split: the larger part still matches
        ("1111", "1122", 1, 2, ()),  # split in halves: none does
        ("11112000", "11111000", 2, 1, (4 / 5,)),  # merged
        ("1122", "1111", 2, 1, ()),
        ("0110", "0100", 1, 1, ()),  # IoU is exactly 1/2: no match
        ("01110", "01100", 1, 1, (2 / 3,)),
    ],
)
def test_matches(truth, predicted, n_truth, n_predicted, ious):
    assert counts(truth, predicted) == InstanceCounts(n_truth, n_predicted, ious)


def test_average_precision_by_hand():
    found = InstanceCounts(n_truth=4, n_predicted=3, matched_ious=(0.9, 0.6, 0.75))
    assert metrics.average_precision(found, 0.5) == 3 / 4
    assert metrics.average_precision(found, 0.6) == 2 / 5  # 0.6 is not above 0.6
    assert metrics.average_precision(found, 0.75) == 1 / 6
    assert metrics.average_precision(found, 0.9) == 0
    with pytest.raises(ValueError, match="below 0.5"):
        metrics.average_precision(InstanceCounts(1, 1, (1.0,)), 0.45)


def test_dsb_score_by_hand():
    # IoUs 1 and 7/10: both match at 0.50 ... 0.65 (AP 1), one from 0.70 on (1 match, 1 missed, 1 false: 1/3).
    found = counts("1111111111022", "1111111000022")
    assert found.matched_ious == (0.7, 1)
    assert metrics.dsb_score(found) == pytest.approx((4 * 1 + 6 / 3) / 10)


@pytest.mark.parametrize(("truth", "predicted", "score"), [("00", "00", 1), ("00", "01", 0), ("01", "00", 0)])
def test_scores_of_images_without_nuclei(truth, predicted, score):
    found = counts(truth, predicted)
    assert metrics.dsb_score(found) == metrics.panoptic_quality(found) == score


def test_pooled_ap_weighs_nuclei_and_a_mean_weighs_images():
    # One image with one nucleus, found; one with three, all missed.
    images = [InstanceCounts(1, 1, (0.9,)), InstanceCounts(3, 0, ())]
    assert metrics.pooled(images) == InstanceCounts(4, 1, (0.9,))
    assert metrics.average_precision(metrics.pooled(images), 0.5) == 1 / 4
    assert np.mean([metrics.average_precision(image, 0.5) for image in images]) == 1 / 2
    assert metrics.pooled([]) == InstanceCounts(0, 0, ())


def test_panoptic_quality_by_hand():
    # 2 matches, 1 false, 2 missed: (0.8 + 0.6) / (2 + 1/2 + 2/2).
    found = InstanceCounts(n_truth=4, n_predicted=3, matched_ious=(0.8, 0.6))
    assert metrics.panoptic_quality(found) == pytest.approx(1.4 / 3.5)


@pytest.mark.parametrize(
    ("n_truth", "n_predicted", "error"), [(4, 4, 0), (4, 3, 0.25), (4, 6, 0.5), (4, 0, 1), (0, 0, 0), (0, 3, 3)]
)
def test_count_error(n_truth, n_predicted, error):
    assert metrics.count_error(InstanceCounts(n_truth, n_predicted, ())) == error


def test_bootstrap_interval_holds_the_mean_and_narrows_with_more_images():
    scores = np.random.default_rng(0).uniform(size=200).tolist()
    low, high = metrics.bootstrap_interval(scores)
    assert low < np.mean(scores) < high
    # 1.96 standard errors to either side, as the central limit theorem has it.
    assert high - low == pytest.approx(2 * 1.96 * np.std(scores) / np.sqrt(200), rel=0.1)
    assert metrics.bootstrap_interval(scores) == (low, high)
    few = metrics.bootstrap_interval(scores[:10])
    assert few[1] - few[0] > 2 * (high - low)
    for alike in ([0.3], [0.3, 0.3]):
        assert metrics.bootstrap_interval(alike) == pytest.approx((0.3, 0.3))
