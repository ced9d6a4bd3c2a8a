"""What differs between two runs of the pipeline."""

import json

from pipeline.tools import verify


def test_verify_shows_what_differs():
    before = {("train", "model"): "a" * 32, ("train", "history"): "b" * 32}
    table = verify.compare(before, before | {("train", "model"): "c" * 32, ("new", "x"): "d" * 32})
    assert table.values.tolist() == [
        ["train", "model", "aaaaaaaa", "cccccccc", "no"],
        ["train", "history", "bbbbbbbb", "bbbbbbbb", "yes"],
        ["new", "x", "missing", "dddddddd", "no"],
    ]


def test_verify_shows_differences_of_scores():
    sides = ({"iou": 0.7, "dice": 0.8}, {"iou": 0.75, "new": 0.5})
    table = verify.compare_scores(*(json.dumps({"test": {"pixel": scores, "n_images": 3}}) for scores in sides))
    assert table.round(6).values.tolist()[0] == ["test/pixel/iou", 0.7, 0.75, 0.05]
    assert table.difference.tolist()[1:] == [float("inf")] * 2
