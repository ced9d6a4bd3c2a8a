"""Scores of whole splits, from images worked out by hand."""

import collections
import json

import numpy as np
import pandas as pd

from nuclei_unet.evaluation import scores as library
from nuclei_unet.labels import resize_labels
from pipeline import evaluate, layout, params, visualize
from pipeline.report import scores as catalogue
from pipeline.report.results import Results
from pipeline.report.scores import ap_by_threshold, by_type, flat_metrics, row, summarise
from pipeline.tools import compare
from pipeline.tracking import names
from tests import PARAMS
from tests.pipeline.examples import TWO, OneMap, sample

MERGED = np.where(np.repeat(np.repeat([[1, 1, 1, 1, 1]], 4, axis=0), 4, axis=1), 255, 0).astype(np.uint8)


def test_resized_images_are_scored_at_native_size_and_empty_ones_if_nothing_is_found(settings):
    small = resize_labels(TWO.astype(np.uint16), (2, 10))
    resized = sample("small", TWO, image=np.where(small > 0, 255, 0).astype(np.uint8))
    predicted, item = evaluate.score(resized, OneMap(settings.evaluate))
    assert predicted.shape == TWO.shape and row(item)["iou"] == 1
    _, item = evaluate.score(sample("empty", np.zeros((16, 16))), OneMap(settings.evaluate))
    assert row(item)["dsb_score"] == 1


NEW = library.ScoreInfo(
    "instance", "half", "Half of the truth", "Half of the number of true nuclei; lower is better.",
    lambda counts: counts.instances.n_truth / 2,
    column="half", short="half", main=True, by_type=True, floor=True, lower_is_better=True,
)  # fmt: skip


def test_one_entry_adds_a_score_everywhere(settings, monkeypatch):
    found, merged = sample("found", TWO), sample("merged", TWO, image=MERGED, image_type="grey-tissue")
    scores = [evaluate.score(one, OneMap(settings.evaluate))[1] for one in (found, merged)]
    without = summarise(scores)
    # One image is perfect; of the other one nothing matches.
    assert without["n_images"] == 2 and without["instance"]["dsb_score"] == 0.5
    monkeypatch.setattr(library, "SCORES", (*library.SCORES, NEW))
    summary = {split: summarise(scores) for split in layout.SCORED_SPLITS}
    # In scores.json and metrics.json, for `dvc metrics diff`.
    assert summary["test"]["instance"]["half"] == summary["test"]["otsu"]["half"] == 1.0
    assert {k: v for k, v in summary["test"]["instance"].items() if k != "half"} == without["instance"]
    assert catalogue.main_scores(summary)["validation"]["half"] == 1.0
    # In the tables, and in the terminal.
    images = pd.DataFrame([row(item) for item in scores])
    image_types = by_type(images)
    columns = (images.half, images.otsu_half, image_types.half, image_types.otsu_half)
    assert [column.tolist() for column in columns] == [[1, 1]] * 4
    header = catalogue.text_table(summary).splitlines()[0]
    assert "half" in header.split() and "Otsu half" in header
    # In MLflow: metric, description, the page of all runs.
    flat = flat_metrics(summary)
    assert flat["test/instance/half"] == 1.0
    assert "| Half of the truth | 1.000 | 1.000 |" in names.description(params.load(PARAMS), flat)
    assert "metrics.`validation/instance/half`" in json.loads(names.view())["selectedColumns"]
    # In the report: the table of scores, that of image_types, and what it means.
    history = pd.DataFrame(columns=["epoch"])
    audit = dict(source="bbbc038", frames=1, images={}, nuclei={}, fault_counts={}, faults=[])
    results = Results(summary, audit, history, images, image_types, ap_by_threshold({"test": scores}))
    report = visualize.render(results, {}, collections.defaultdict(str))
    assert report.count("Half of the truth") == 2 and "Half of the number of true nuclei" in report
    assert ">Otsu half<" in report
    # In the comparison of two branches, where less of it is better.
    before = images.assign(split="test").set_index(["split", "image_id"], drop=False)
    after = before.assign(half=before.half - 0.5)
    (difference,) = (found for found in compare.paired_differences(before, after) if found["key"] == "half")
    assert difference["mean"] == -0.5 and difference["verdict"] == "better" and difference["better"] == 2
    ((_, values),) = (found for found in catalogue.change_rows(summary, summary) if found[0] is NEW)
    assert values == [1, 1, 0] * 2
    # A side from before the score was there has a gap.
    old = dict.fromkeys(layout.SCORED_SPLITS, without)
    ((_, values),) = (found for found in catalogue.change_rows(old, summary) if found[0] is NEW)
    assert np.isnan(values[0]) and values[1] == 1
    assert "half" not in [found["key"] for found in compare.paired_differences(before.drop(columns="half"), after)]


def test_the_scores_that_are_shown_at_the_top_are_in_the_catalogue():
    assert {catalogue.DECISIVE.partition("/")[2], *visualize.TILES} <= {score.path for score in library.SCORES}
    floor = [score.key for score in library.SCORES if score.floor]
    assert len(set(floor)) == len(floor)  # one group holds them all
