"""The visualize stage: the choice of examples, and the whole stage on a small project."""

import numpy as np
import pandas as pd
import pytest

from pipeline import visualize
from pipeline.dataset import processed as dataset
from pipeline.report.results import read_results
from tests.html import Reader
from tests.pipeline.examples import write_project
from tests.refusals import refused


def test_best_median_and_worst_images():
    images = pd.DataFrame({"image_id": list("edcba"), "dsb_score": [0.5, 0.1, 0.9, 0.5, 0.3]})
    groups = visualize.best_median_worst(images, 1)
    # Of 0.5 and 0.5 the first id.
    assert [(name, *rows.image_id) for name, rows in groups.items()] == [("best", "c"), ("median", "b"), ("worst", "d")]
    groups = visualize.best_median_worst(images[:2], 3)
    assert [len(rows) for rows in groups.values()] == [2, 2, 2]


def test_examples_are_the_medians_of_the_commonest_kinds_then_what_is_nearest():
    test = pd.DataFrame({"image_id": list("abcdef"), "image_type": list("xyxxyz")})
    test["dsb_score"] = [0.9, 0.8, 0.1, 0.4, 0.2, 0.6]
    assert visualize.near_median_by_type(test, 2).image_id.tolist() == ["d", "e"]
    assert visualize.near_median_by_type(test, 4).image_id.tolist() == ["d", "e", "f", "b"]


@pytest.fixture
def project(here):
    """A project folder with five test images and all that the stage reads; the current folder during the test."""
    write_project(here)
    return here


def test_the_stage_writes_figures_and_a_page_that_needs_nothing_else(project, capsys):
    visualize.main()
    names = {path.name for path in (project / "reports/figures").iterdir()}
    charts = {"training_curves.png", "ap_by_iou_threshold.png", "iou_by_type.png"}
    assert names == charts | {"best.png", "median.png", "worst.png", "examples.png"}
    assert "report.html" in capsys.readouterr().out

    text = (project / "reports/report.html").read_text(encoding="utf-8")
    page = Reader(text)
    images = page.all("img")
    assert len(images) == len(names)
    assert all(i["src"].startswith("data:image/png;base64,iVBOR") and len(i["alt"]) > 30 for i in images)
    assert not any(page.all(tag) for tag in ("script", "link", "iframe", "object")) and "url(" not in text
    assert all("<caption>" in table for table in text.split("<table>")[1:])
    assert str(project) not in text
    assert "DSB score of 0.432" in text and "0.211" in text
    assert "train.model.filters" in text and "[24, 48, 96]" in text
    assert "&lt;script&gt;image_type" in text and "&lt;b&gt;x" in text
    assert text.count("&lt;b&gt;x") == 20 and "first 20 of 25" in text
    assert "All images are synthetic" not in text

    # Twice gives the same bytes.
    written = {path: path.read_bytes() for path in (project / "reports").rglob("*") if path.suffix in (".html", ".png")}
    visualize.main()
    assert len(written) == 8 and all(path.read_bytes() == data for path, data in written.items())


def test_synthetic_images_get_a_banner(project):
    results = read_results()
    results.audit["source"] = "synthetic"
    names = ("training_curves", "ap_by_iou_threshold", "iou_by_type", "best", "median", "worst", "examples")
    html = visualize.render(results, {"a.b": (1, 2), "c": None}, {f"{name}.png": "" for name in names})
    assert "All images are synthetic" in html
    assert "[1, 2]" in html and "null" in html


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("reports/scores.json", "evaluate"),
        ("reports/data_audit.json", "preprocess"),
        ("data/raw/stage1_test.zip", "download"),
        (f"data/predictions/0{'f' * 63}.png", "evaluate"),
    ],
)
def test_a_missing_file_is_named_with_its_stage_and_old_figures_stay(project, name, writer):
    (project / name).unlink()
    figure = project / "reports/figures/old.png"
    figure.parent.mkdir()
    figure.touch()
    refused(f"{name}: no such file; stage {writer} writes it, run `dvc repro`", visualize.main)
    assert [path.name for path in figure.parent.iterdir()] == ["old.png"]
    assert not list((project / "reports").glob("*.partial"))


def test_a_damaged_file_is_named(project):
    dataset.write_labels(project / f"data/predictions/0{'f' * 63}.png", np.zeros((4, 4), np.uint16))
    refused("differ in size", visualize.main)
    for name, text, message in (
        ("per_image.csv", "image_id,split\n", "has no test image"),
        ("by_type.csv", "", "not a CSV table.*--force evaluate"),
        ("scores.json", "{", "not valid JSON"),
    ):
        path = project / "reports" / name
        before = path.read_text()
        path.write_text(text)
        refused(f"{name}: {message}", visualize.main)
        path.write_text(before)
