"""The model metadata says what the committed reports and tables say."""

import json
import re

import pandas as pd

from nuclei_unet.prediction import models
from tests import ROOT

CARD = (ROOT / "docs/model-card.md").read_text()


def rows(text):
    """Return the cells of all rows of a page's tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_data_are_those_of_the_audit():
    audit = json.loads((ROOT / "reports/data_audit.json").read_text())
    assert f"{audit['images']['train']} images with {audit['nuclei']['train']:,} nuclei" in CARD


def test_the_table_of_kinds_is_that_of_the_reports():
    table = pd.read_csv(ROOT / "reports/by_type.csv").set_index(["image_type", "split"])
    sizes = {row[0]: (row[1], row[4]) for row in rows(failures()) if len(row) == 6}
    for image_type in table.index.unique("image_type"):
        cells = [*sizes.get(image_type, ("0", "–"))]
        for split in ("validation", "test"):
            if (image_type, split) in table.index:
                row = table.loc[(image_type, split)]
                cells += [f"{row.n_images:.0f}", f"{row.ap50:.3f}", f"{row.iou:.3f}", f"{row.dsb_score:.3f}"]
            else:
                cells += ["–"] * 4
        test = (image_type, "test") in table.index
        cells.append(f"{table.loc[(image_type, 'test')].otsu_dsb_score:.3f}" if test else "–")
        assert [image_type, *cells] in rows(CARD)


def failures():
    return (ROOT / "benchmarks/results/failures.md").read_text()


def test_the_table_of_failures_is_that_of_the_benchmark():
    shown = [row for row in rows(CARD) if row[0] in ("validation", "test") and len(row) == 9]
    found = [row for row in rows(failures()) if len(row) == 9]
    assert len(shown) == 2 and all(row in found for row in shown)
    area = {row[0]: float(row[-1]) for row in found if row[1] == "all"}
    assert f"{area['validation'] - 1:.0%} too large, on the test images {1 - area['test']:.0%} too small" in CARD


def test_sizes_are_those_of_the_pretrained_model():
    sizes = models.describe(None)[0].diameters
    assert f"median nucleus of an image has {sizes.low} to {sizes.high} pixels" in CARD


def test_pictures_and_linked_files_are_there():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", CARD) if "://" not in link]
    assert "failures.png" in links
    assert not [link for link in links if link and not (ROOT / "docs" / link).exists()]
