"""The README says what the committed reports say."""

import json

import pandas as pd

from tests import ROOT

README = (ROOT / "README.md").read_text()


def test_the_main_scores_are_those_of_the_reports():
    scores = json.loads((ROOT / "reports/scores.json").read_text())
    validation, test = scores["validation"], scores["test"]
    for name, group, key in (
        ("AP50", "instance", "ap50"),
        ("AP75", "instance", "ap75"),
        ("AP90", "instance", "ap90"),
        ("panoptic quality", "instance", "pq"),
        ("count error", "instance", "count_error"),
        ("pixel IoU", "pixel", "iou"),
        ("pixel Dice", "pixel", "dice"),
    ):
        ours, floor = (
            [f"{s[g].get(key, -1):.3f}".replace("-1.000", "–") for s in (validation, test)] for g in (group, "otsu")
        )
        assert f"| {name} | {ours[0]} | {floor[0]} | **{ours[1]}** | {floor[1]} |" in README
    for split in (validation, test):
        score = split["instance"]
        interval = f"{score['dsb_score']:.3f} ({score['dsb_score_low']:.3f}–{score['dsb_score_high']:.3f})"
        assert interval in README


def test_the_table_of_kinds_is_that_of_the_reports():
    table = pd.read_csv(ROOT / "reports/by_type.csv").set_index(["image_type", "split"])
    for image_type in table.index.unique("image_type"):
        cells = []
        for split in ("validation", "test"):
            if (image_type, split) in table.index:
                row = table.loc[(image_type, split)]
                cells += [f"{row.n_images:.0f}", f"{row.iou:.3f}", f"{row.dsb_score:.3f}"]
            else:
                cells += ["–"] * 3
        assert f"| {image_type} | {' | '.join(cells)} |" in README
