"""Two sides of a comparison: what differs, and whether that may be chance."""

import numpy as np
import pandas as pd
import pytest

from pipeline import params
from pipeline.report.page import page
from pipeline.tools import compare


def images(scores, split="test"):
    """Return per_image.csv of images a, b, c ... with these DSB scores."""
    table = pd.DataFrame({"image_id": [chr(97 + n) for n in range(len(scores))], "split": split, "dsb_score": scores})
    return table.assign(ap50=0.5, iou=0.8).set_index(["split", "image_id"], drop=False)


def difference(before, after):
    return next(row for row in compare.paired_differences(before, after) if row["name"] == "DSB score")


def test_a_difference_of_all_images_is_told_from_chance():
    rng = np.random.default_rng(1)
    scores = rng.uniform(0.2, 0.8, 60)
    better = difference(images(scores), images(scores + 0.02 + rng.normal(0, 0.01, 60)))
    assert better["verdict"] == "better" and better["low"] > 0.015 and better["images"] == 60
    assert better["better"] > 50 and better["mean"] == pytest.approx(0.02, abs=0.005)
    noise = difference(images(scores), images(scores + rng.normal(0, 0.05, 60)))
    assert noise["verdict"] == "may be chance" and noise["low"] < 0 < noise["high"]
    assert difference(images(scores), images(scores - 0.1))["verdict"] == "worse"
    same = difference(images(scores), images(scores))
    assert same["verdict"] == "the same" and same["better"] == same["worse"] == 0


def test_only_images_of_both_sides_count():
    row = difference(images([0.1, 0.2, 0.3]), images([0.2, 0.3]))
    assert row["images"] == 2 and row["mean"] == pytest.approx(0.1)
    # An image that moved to another split is not the same image.
    assert compare.paired_differences(images([0.1], "validation"), images([0.1], "test")) == []


def test_images_that_changed_most():
    changed = compare.most_changed(images([0.5, 0.5, 0.5, 0.5]), images([0.6, 0.4, 0.5, 0.9]), count=1)
    assert {name: list(rows.image_id) for name, rows in changed.items()} == {"better": ["d"], "worse": ["b"]}
    assert all(rows.empty for rows in compare.most_changed(images([0.5]), images([0.5]), count=3).values())


def test_parameters_that_differ():
    before = params.flatten({"train": {"seed": 1, "model": {"filters": [16, 32]}, "old": None}})
    after = params.flatten({"train": {"seed": 2, "model": {"filters": [16, 32]}}, "verify": {"new": True}})
    changed = [("train.seed", "1", "2"), ("train.old", "null", "–"), ("verify.new", "–", "true")]
    assert compare.changed_parameters(before, after) == changed


def test_what_html_could_mean_is_escaped():
    empty = dict.fromkeys(("parameters", "scores", "differences"), ())
    html = page(compare.TEMPLATE, revision="<script>", commit="abc", headline="h", pictures={"curves": ""}, **empty)
    assert "<script>" not in html and "&lt;script&gt;" in html and "The difference is in the code or the data" in html
