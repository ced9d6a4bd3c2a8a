"""DVC stage: draw the figures and write the report.

    python -m pipeline.visualize

Reads params.yaml, what train and evaluate wrote to reports/ (history.csv, scores.json, per_image.csv, by_type.csv,
ap_by_threshold.csv) and what preprocess found (reports/data_audit.json). For the test images shown, also reads the
pixels in data/raw/stage1_test.zip, the truth in data/processed/ and the labels in data/predictions/.
Writes reports/figures/ and reports/report.html, one page that needs no other file and no internet.
"""

import json
import time
from collections.abc import Mapping

import pandas as pd

from nuclei_unet.files import fresh_file, fresh_folder
from pipeline import layout, params, stage
from pipeline.report import charts, pictures, scores
from pipeline.report.page import page, picture
from pipeline.report.results import Results, read_example, read_results
from pipeline.report.style import write_figure
from pipeline.tracking import sync

TEMPLATE = "report.html.jinja"
# The scores at the top of the report, by their place in scores.json.
TILES = ("instance/dsb_score", "instance/ap50", "instance/pq", "pixel/iou")


def main() -> None:
    """Write reports/figures/ and reports/report.html."""
    settings = params.load()
    started = time.monotonic()
    results = read_results()
    test = results.per_image[results.per_image.split == "test"]
    groups = best_median_worst(test, settings.visualize.examples) | {"examples": near_median_by_type(test, 4)}
    with fresh_folder(layout.FIGURES) as folder:
        for name, draw, *tables in (
            ("training_curves", charts.training_curves, results.history),
            ("ap_by_iou_threshold", charts.average_precision_curves, results.ap_by_threshold),
            ("iou_by_type", charts.scores_by_type, results.by_type, results.per_image),
        ):
            write_figure(folder / f"{name}.png", draw, *tables, settings.visualize.dpi)
        for name, rows in groups.items():
            draw = pictures.example_columns if name == "examples" else pictures.error_rows
            examples = [read_example(row) for row in rows.itertuples()]
            write_figure(folder / f"{name}.png", draw, examples, settings.visualize.dpi)
    with fresh_file(layout.REPORT) as path:
        drawn = {figure.name: picture(figure.read_bytes()) for figure in sorted(layout.FIGURES.glob("*.png"))}
        path.write_text(render(results, params.flatten(settings, without=params.AROUND), drawn), encoding="utf-8")
    sync.after("visualize", settings, time.monotonic() - started)
    print(f"{headline(results.summary)} Report: {layout.REPORT}")


def best_median_worst(test: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return the rows of the `count` best, middle and worst images by DSB score; equal scores in order of ids."""
    ordered = test.sort_values(["dsb_score", "image_id"])
    first = max(0, (len(ordered) - count) // 2)
    return {"best": ordered[::-1][:count], "median": ordered[first : first + count], "worst": ordered[:count]}


def near_median_by_type(test: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return up to `count` rows: for each image type, most common first, the image of median DSB score.

    If there are fewer types than `count`, the images nearest to the overall median follow. Of two medians the lower one
    is taken.
    """
    ordered = test.sort_values(["dsb_score", "image_id"])
    sizes = ordered.groupby("image_type").size()
    image_types = sorted(sizes.index, key=lambda image_type: (-sizes[image_type], image_type))
    medians = pd.concat(
        [rows.iloc[[(len(rows) - 1) // 2]] for rows in (ordered[ordered.image_type == k] for k in image_types)]
    )
    rest = ordered.drop(medians.index)
    distance = (rest.dsb_score - test.dsb_score.median()).abs()
    return pd.concat([medians, rest.loc[distance.sort_values(kind="stable").index]])[:count]


def headline(summary: Mapping) -> str:
    """Return the result in one sentence."""
    test = summary["test"]
    unet, otsu = (test["instance"]["dsb_score"], test["pixel"]["iou"]), (test["otsu"]["dsb_score"], test["otsu"]["iou"])
    return (
        f"On {test['n_images']} test images the U-Net reaches a DSB score of {unet[0]:.3f} and a pixel IoU of "
        f"{unet[1]:.3f}; Otsu's threshold, the baseline, reaches {otsu[0]:.3f} and {otsu[1]:.3f}."
    )


def render(results: Results, parameters: Mapping[str, object], drawn: Mapping[str, str]) -> str:
    """Return the report as HTML; `drawn` is file name -> base64, `parameters` as `params.flatten` gives them."""
    return page(
        TEMPLATE,
        headline=headline(results.summary),
        summary=results.summary,
        audit=results.audit,
        splits=layout.SCORED_SPLITS,
        rows=scores.score_rows(results.summary),
        tiles=TILES,
        by_type=results.by_type.sort_values(["n_images", "image_type"], ascending=[False, True]).to_dict("records"),
        type_columns=scores.type_columns(),
        parameters={key: json.dumps(value) for key, value in parameters.items()},
        pictures=drawn,
    )


if __name__ == "__main__":
    stage.run(main)
