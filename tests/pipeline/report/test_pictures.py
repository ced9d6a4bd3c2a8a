"""Pictures of predictions: colours, errors, panels and crops."""

import numpy as np

from nuclei_unet.evaluation.outcomes import Outcome
from pipeline.report.pictures import Example, coloured, crop, error_map, shown

CORRECT, MISSED, FALSE, SPLIT, MERGED = Outcome


def test_error_map_draws_predictions_and_missed_nuclei_on_top():
    truth = np.array([[1, 1, 1, 0, 5, 5, 0, 0]], np.uint16)
    predicted = np.array([[2, 2, 0, 0, 0, 3, 3, 3]], np.uint16)
    np.testing.assert_array_equal(error_map(truth, predicted), [[CORRECT, CORRECT, 0, 0, MISSED, MISSED, FALSE, FALSE]])


def test_a_perfect_prediction_has_the_colours_of_the_truth_and_a_false_nucleus_is_white():
    image = np.zeros((2, 5, 3), np.uint8)
    truth = np.array([[1, 0, 2, 0, 0], [1, 0, 2, 0, 0]], np.uint16)
    predicted = np.array([[8, 0, 4, 0, 6], [8, 0, 4, 0, 6]], np.uint16)
    pixels = coloured(image, truth, predicted)
    np.testing.assert_array_equal(pixels[:, :4], coloured(image, truth, truth)[:, :4])
    assert (pixels[:, 4] == 255).all() and (pixels[0, 0] != pixels[0, 2]).any()


def test_panels_are_no_larger_than_asked_and_keep_labels():
    labels = np.zeros((300, 600), np.uint16)
    labels[50:100, 50:150] = 40_000
    example = Example(np.zeros((300, 600, 3), np.uint16), labels, labels, ())
    for side, shape in ((200, (100, 200)), (9000, (256, 512))):
        image, truth, predicted, found = shown(example, side)
        assert image.shape == (*shape, 3) and truth.shape == predicted.shape == found.shape == shape
        assert set(np.unique(truth)) == {0, 40_000} and set(np.unique(found)) == {0, CORRECT}


def test_crop_takes_the_square_with_most_nuclei():
    truth = np.zeros((6, 9), np.uint16)
    truth[2:5, 5:8] = 1
    part = crop(Example(np.zeros((6, 9, 3), np.uint8), truth, truth, ()), 3)
    assert part.image.shape == (3, 3, 3) and part.truth.all() and part.predicted.all()
    assert crop(part, 256).truth.shape == (3, 3)
