"""The visualize stage: the choice of examples, and the whole stage on a small project."""

import json
import zipfile
from dataclasses import dataclass, field
from html.parser import HTMLParser

import cv2
import numpy as np
import pandas as pd
import pytest

from nuclei_unet.errors import InputError
from pipeline import visualize
from pipeline.dataset import archives
from pipeline.dataset import processed as dataset
from pipeline.report import results
from pipeline.report.results import read_results
from tests import PARAMS


def scored(**columns):
    return pd.DataFrame(columns)


def test_best_median_and_worst_images():
    groups = visualize.best_median_worst(scored(image_id=list("edcba"), dsb_score=[0.5, 0.1, 0.9, 0.5, 0.3]), 1)
    assert {name: rows.image_id.tolist() for name, rows in groups.items()} == {
        "best": ["c"],
        "median": ["b"],  # of 0.5 and 0.5 the first id
        "worst": ["d"],
    }
    groups = visualize.best_median_worst(scored(image_id=["a", "b"], dsb_score=[0.1, 0.2]), 3)
    assert [len(rows) for rows in groups.values()] == [2, 2, 2]


def test_examples_are_the_medians_of_the_commonest_kinds_then_what_is_nearest():
    test = scored(
        image_id=list("abcdef"), kind=["x", "y", "x", "x", "y", "z"], dsb_score=[0.9, 0.8, 0.1, 0.4, 0.2, 0.6]
    )
    assert visualize.near_median_by_kind(test, 2).image_id.tolist() == ["d", "e"]
    assert visualize.near_median_by_kind(test, 4).image_id.tolist() == ["d", "e", "f", "b"]


KINDS = ("small-fluorescent", "purple-on-white", "<script>kind")
SHAPES = ((40, 56), (64, 30), (48, 48), (40, 56), (48, 48))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with five test images and all that the stage reads; the current folder during the test."""
    rng = np.random.default_rng(0)
    for folder in ("data/raw", "data/processed/labels", "data/predictions", "reports"):
        (tmp_path / folder).mkdir(parents=True)
    text = PARAMS.read_text(encoding="utf-8").replace("dpi: 110", "dpi: 40").replace("examples: 3", "examples: 2")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    ids = [f"{index}{'f' * 63}" for index in range(len(SHAPES))]
    with zipfile.ZipFile(tmp_path / "data/raw/stage1_test.zip", "w") as archive:
        for image_id, (height, width) in zip(ids, SHAPES, strict=True):
            # RGBA as in BBBC038.
            _, png = cv2.imencode(".png", rng.integers(0, 255, (height, width, 4), np.uint8))
            archive.writestr(archives.image_member(image_id), png.tobytes())
            labels = np.kron(rng.integers(0, 9, (height // 5, width // 5)), np.ones((5, 5), int))
            labels = np.pad(labels, ((0, height % 5), (0, width % 5))).astype(np.uint16)
            dataset.write_labels(tmp_path / f"data/processed/labels/{image_id}.png", labels)
            dataset.write_labels(tmp_path / f"data/predictions/{image_id}.png", np.roll(labels, 1, axis=0))
    write_reports(tmp_path / "reports", ids)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_reports(folder, ids):
    splits = [(i, s) for s in ("validation", "test") for i in ids]
    score = dict(iou=0.8, dice=0.9, dsb_score=0.4, ap50=0.7, otsu_iou=0.6, otsu_dsb_score=0.2)
    rows = [
        dict(image_id=i, split=s, kind=KINDS[n % 3], nuclei=9, predicted_nuclei=8, **score)
        for n, (i, s) in enumerate(splits)
    ]
    pd.DataFrame(rows).to_csv(folder / "per_image.csv", index=False)
    by_kind = [
        dict(split=s, kind=k, n_images=n + 1, **score) for s in ("validation", "test") for n, k in enumerate(KINDS)
    ]
    pd.DataFrame(by_kind).to_csv(folder / "by_kind.csv", index=False)
    columns = results.TABLES["ap_by_threshold"][1]
    curve = [dict.fromkeys(columns, 0.5) | dict(iou_threshold=t) for t in (0.5, 0.55)]
    pd.DataFrame(curve).to_csv(folder / "ap_by_threshold.csv", index=False)
    history = {column: [0.5, 0.25] for column in results.TABLES["history"][1]} | {"epoch": [1, 2]}
    pd.DataFrame(history).to_csv(folder / "history.csv", index=False)
    pixel = dict(iou=0.8, dice=0.9, precision=0.85, recall=0.95)
    instance = dict(
        dsb_score=0.4321, dsb_score_low=0.4, dsb_score_high=0.5, ap50=0.7, ap75=0.5, ap90=0.1, pq=0.6, count_error=0.2
    )
    part = dict(pixel=pixel, pixel_pooled=pixel, instance=instance, n_images=5)
    part["otsu"] = dict(iou=0.6, dsb_score=0.2109, ap50=0.3)
    (folder / "scores.json").write_text(json.dumps({"validation": part, "test": part}))
    audit = dict(source="bbbc038", frames=3, fault_counts={"empty_mask": 25, "no_nuclei": 0})
    audit["images"] = audit["nuclei"] = dict(train=10, validation=5, test=5)
    fault = dict(fault="empty_mask", image_id=ids[0], detail="mask <b>x</b>.png is empty", handled="skip")
    (folder / "data_audit.json").write_text(json.dumps(audit | {"faults": [fault] * 25}))


@dataclass
class Page:
    """The tags of an HTML page."""

    text: str
    tags: list = field(default_factory=list)

    def __post_init__(self):
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes: self.tags.append((tag, dict(attributes)))
        parser.feed(self.text)

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_the_stage_writes_figures_and_a_page_that_needs_nothing_else(project, capsys):
    visualize.main()
    names = {path.name for path in (project / "reports/figures").iterdir()}
    charts = {"training_curves.png", "ap_by_iou_threshold.png", "iou_by_kind.png"}
    assert names == charts | {"best.png", "median.png", "worst.png", "examples.png"}
    assert "report.html" in capsys.readouterr().out

    page = Page((project / "reports/report.html").read_text(encoding="utf-8"))
    images = page.all("img")
    assert len(images) == len(names)
    assert all(i["src"].startswith("data:image/png;base64,iVBOR") and len(i["alt"]) > 30 for i in images)
    assert not any(page.all(tag) for tag in ("script", "link", "iframe", "object")) and "url(" not in page.text
    assert all("<caption>" in table for table in page.text.split("<table>")[1:])
    assert str(project) not in page.text
    assert "DSB score of 0.432" in page.text and "0.211" in page.text
    assert "train.model.filters" in page.text and "[32, 64, 128, 192]" in page.text
    assert "&lt;script&gt;kind" in page.text and "&lt;b&gt;x" in page.text
    assert page.text.count("&lt;b&gt;x") == 20 and "first 20 of 25" in page.text
    assert "All images are synthetic" not in page.text


def test_twice_gives_the_same_bytes(project):
    contents = []
    for _ in range(2):
        visualize.main()
        outputs = [project / "reports/report.html", *sorted((project / "reports/figures").iterdir())]
        contents.append([path.read_bytes() for path in outputs])
    assert contents[0] == contents[1]


def test_synthetic_images_get_a_banner(project):
    results = read_results()
    results.audit["source"] = "synthetic"
    names = ("training_curves", "ap_by_iou_threshold", "iou_by_kind", "best", "median", "worst", "examples")
    html = visualize.render(results, {"a.b": (1, 2), "c": None}, {f"{name}.png": "" for name in names})
    assert "All images are synthetic" in html
    assert "[1, 2]" in html and "null" in html


@pytest.mark.parametrize(
    ("name", "writer"),
    [
        ("reports/history.csv", "train"),
        ("reports/scores.json", "evaluate"),
        ("reports/per_image.csv", "evaluate"),
        ("reports/data_audit.json", "preprocess"),
        ("data/raw/stage1_test.zip", "download"),
        (f"data/processed/labels/0{'f' * 63}.png", "preprocess"),
        (f"data/predictions/0{'f' * 63}.png", "evaluate"),
    ],
)
def test_a_missing_file_is_named_with_its_stage_and_old_figures_stay(project, name, writer):
    (project / name).unlink()
    figure = project / "reports/figures/old.png"
    figure.parent.mkdir()
    figure.touch()
    with pytest.raises(InputError, match=f"{name}: no such file; stage {writer} writes it, run `dvc repro`"):
        visualize.main()
    assert [path.name for path in figure.parent.iterdir()] == ["old.png"]
    assert not list((project / "reports").glob("*.partial"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("history.csv", "epoch,loss\n1,2\n", "lacks column 'learning_rate'.*--force train"),
        ("by_kind.csv", "", "not a CSV table"),
        ("scores.json", "{", "not valid JSON"),
        ("per_image.csv", ",".join(results.TABLES["per_image"][1]) + "\n", "has no test image"),
    ],
)
def test_a_damaged_report_is_named(project, name, text, message):
    (project / "reports" / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: {message}"):
        visualize.main()


def test_sizes_that_differ_are_an_error(project):
    dataset.write_labels(project / f"data/predictions/0{'f' * 63}.png", np.zeros((4, 4), np.uint16))
    with pytest.raises(InputError, match="differ in size"):
        visualize.main()
