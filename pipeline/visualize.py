"""Stage `visualize`: draw the figures and write the report. Run: `python -m pipeline.visualize`

Reads params.yaml, what train and evaluate wrote to reports/ (history.csv, scores.json, per_image.csv, by_kind.csv,
ap_by_threshold.csv), what preprocess found (reports/data_audit.json), and of the test images shown the pixels in
data/raw/stage1_test.zip, the truth in data/processed/ and the labels in data/predictions/.
Writes reports/figures/ and reports/report.html, one page that needs no other file and no network.
"""

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib.style
import pandas as pd
from matplotlib.figure import Figure

from pipeline import params, stage
from pipeline.dataset import archives
from pipeline.dataset import processed as dataset
from pipeline.report import charts as figures
from pipeline.stage import InputError
from pipeline.tracking import run as tracking

TEST_IMAGES = Path("data/raw/stage1_test.zip")
PREDICTIONS = Path("data/predictions")
REPORTS = Path("reports")
TEMPLATE = Path(__file__).with_name("report") / "report.html.jinja"

# Which stage writes each table of the reports, and the columns that are shown of it.
HISTORY_COLUMNS = ("loss", "foreground_iou", "foreground_dice")
SCORE_COLUMNS = ("iou", "dsb_score", "otsu_iou", "otsu_dsb_score")
TABLES = {
    "history": (
        "train",
        ("epoch", "learning_rate", *HISTORY_COLUMNS, *(f"val_{name}" for name in HISTORY_COLUMNS)),
    ),
    "per_image": ("evaluate", ("image_id", "split", "kind", "nuclei", "predicted_nuclei", *SCORE_COLUMNS)),
    "by_kind": ("evaluate", ("split", "kind", "n_images", "dice", "ap50", *SCORE_COLUMNS)),
    "ap_by_threshold": ("evaluate", ("iou_threshold", "validation_unet", "validation_otsu", "test_unet", "test_otsu")),
}


class Score(NamedTuple):
    """A row of the table of scores: its place in scores.json, its name, and what it means."""

    group: str
    key: str
    name: str
    meaning: str


SCORES = (
    Score("instance", "dsb_score", "DSB score", "Kaggle's score of the 2018 Data Science Bowl: of each image the mean "
          "of TP / (TP + FP + FN) over the IoU thresholds 0.50, 0.55 … 0.95, then the mean over the images."),
    Score("instance", "dsb_score_low", "DSB score, from", "The lower end of the DSB score's 95% interval, by drawing "
          "images again and again (bootstrap): how much the score hangs on which images there happen to be."),
    Score("instance", "dsb_score_high", "DSB score, to", "The upper end of that interval."),
    Score("instance", "ap50", "AP at IoU 0.50", "TP / (TP + FP + FN) with the nuclei of all images pooled; a predicted "
          "nucleus is a true positive if its IoU with a true one is above 0.50."),
    Score("instance", "ap75", "AP at IoU 0.75", "The same, with matches above 0.75: outlines have to fit closely."),
    Score("instance", "ap90", "AP at IoU 0.90", "The same, with matches above 0.90: close to pixel-perfect."),
    Score("instance", "pq", "Panoptic quality", "Sum of the IoUs of the matches above 0.50, divided by "
          "TP + FP/2 + FN/2: how many nuclei were found times how well they fit."),
    Score("instance", "count_error", "Count error", "|predicted − true| / true number of nuclei, mean over the images; "
          "lower is better."),
    Score("pixel", "iou", "Pixel IoU", "Nucleus pixels in both truth and prediction, divided by those in either; "
          "mean over the images."),
    Score("pixel", "dice", "Pixel Dice", "Twice the nucleus pixels in both, divided by the sum of those in each; "
          "mean over the images."),
    Score("pixel", "precision", "Pixel precision", "Share of the predicted nucleus pixels that are right."),
    Score("pixel", "recall", "Pixel recall", "Share of the true nucleus pixels that were found."),
    Score("pixel_pooled", "iou", "Pixel IoU, pooled", "The same as pixel IoU over the pixels of all images together: "
          "large images count for more."),
    Score("pixel_pooled", "dice", "Pixel Dice, pooled", "The same as pixel Dice over all pixels together."),
)  # fmt: skip


@dataclass(frozen=True)
class Results:
    """What the other stages reported."""

    metrics: dict
    audit: dict
    history: pd.DataFrame
    per_image: pd.DataFrame
    by_kind: pd.DataFrame
    ap_by_threshold: pd.DataFrame


FILES = (REPORTS / "figures", REPORTS / "report.html")


def main() -> None:
    """Write reports/figures/ and reports/report.html."""
    settings = params.load()
    started = time.monotonic()
    results = read_results(REPORTS)
    test = results.per_image[results.per_image.split == "test"]
    groups = best_median_worst(test, settings.visualize.examples) | {"examples": near_median_by_kind(test, 4)}
    with stage.fresh_folder(REPORTS / "figures") as folder:
        write_charts(folder, results, settings.visualize.dpi)
        for name, rows in groups.items():
            draw = figures.example_columns if name == "examples" else figures.error_rows
            examples = [read_example(row, TEST_IMAGES, dataset.FOLDER, PREDICTIONS) for row in rows.itertuples()]
            write_figure(folder / f"{name}.png", draw, examples, settings.visualize.dpi)
    with stage.fresh_file(REPORTS / "report.html") as path:
        path.write_text(
            render(results, params.flatten(settings, without=params.AROUND), read_pictures(REPORTS / "figures")),
            encoding="utf-8",
        )
    seconds = time.monotonic() - started
    tracking.log_stage(settings, {}, FILES, "visualize", seconds)
    print(f"{headline(results.metrics)} Report: {REPORTS / 'report.html'}")


def read_results(folder: Path) -> Results:
    """Read the reports of the other stages. InputError names a missing file and the stage that writes it."""
    tables = {name: read_table(folder / f"{name}.csv", *contract) for name, contract in TABLES.items()}
    if "test" not in set(tables["per_image"].split):
        raise InputError(f"{folder / 'per_image.csv'}: has no test image; run `dvc repro --force evaluate`")
    return Results(
        metrics=read_json(folder / "scores.json", "evaluate"),
        audit=read_json(folder / "data_audit.json", "preprocess"),
        **tables,
    )


def read_table(path: Path, writer: str, columns: Sequence[str]) -> pd.DataFrame:
    """Read a CSV that stage `writer` writes; InputError if it is not there, is no table or lacks a column."""
    try:
        table = pd.read_csv(existing(path, writer), dtype={"image_id": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no CSV table ({error}); run `dvc repro --force {writer}`") from None
    if missing := [column for column in columns if column not in table.columns]:
        raise InputError(f"{path}: lacks column {missing[0]!r}; run `dvc repro --force {writer}`")
    return table


def read_json(path: Path, writer: str) -> dict:
    """Read a JSON file that stage `writer` writes; InputError if it is not there or not JSON."""
    try:
        return json.loads(existing(path, writer).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); run `dvc repro --force {writer}`") from None


def existing(path: Path, writer: str) -> Path:
    """Return `path`, or raise InputError that names the stage that writes it."""
    if not path.exists():
        raise InputError(f"{path}: no such file; stage {writer} writes it, run `dvc repro`")
    return path


def best_median_worst(test: pd.DataFrame, count: int) -> dict[str, pd.DataFrame]:
    """Return the rows of the `count` best, middle and worst images by DSB score; equal scores in order of ids."""
    ordered = test.sort_values(["dsb_score", "image_id"])
    first = max(0, (len(ordered) - count) // 2)
    return {
        "best": ordered[::-1][:count],
        "median": ordered[first : first + count],
        "worst": ordered[:count],
    }


def near_median_by_kind(test: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return up to `count` rows: of each kind, commonest first, the image of median DSB score.

    With fewer kinds than `count` the images next to the overall median fill up. Of two medians the lower one counts.
    """
    ordered = test.sort_values(["dsb_score", "image_id"])
    sizes = ordered.groupby("kind").size()
    kinds = sorted(sizes.index, key=lambda kind: (-sizes[kind], kind))
    medians = pd.concat([rows.iloc[[(len(rows) - 1) // 2]] for rows in (ordered[ordered.kind == k] for k in kinds)])
    rest = ordered.drop(medians.index)
    distance = (rest.dsb_score - test.dsb_score.median()).abs()
    return pd.concat([medians, rest.loc[distance.sort_values(kind="stable").index]])[:count]


def read_example(row: NamedTuple, test_images: Path, processed: Path, predictions: Path) -> figures.Example:
    """Read what is shown of a test image: its native pixels, its truth, its prediction; `row` is of per_image.csv."""
    with archives.open_archive(existing(test_images, "download")) as archive:
        image = archives.read_image(archive, archives.image_member(row.image_id))
    truth = dataset.read_labels(existing(processed / "labels" / f"{row.image_id}.png", "preprocess"))
    predicted = dataset.read_labels(existing(predictions / f"{row.image_id}.png", "evaluate"))
    if not image.shape[:2] == truth.shape == predicted.shape:
        sizes = f"{image.shape[:2]}, {truth.shape} and {predicted.shape}"
        raise InputError(f"{row.image_id}: image, truth and prediction differ in size: {sizes}; run `dvc repro`")
    caption = (
        row.image_id[:8],
        row.kind,
        f"DSB score {row.dsb_score:.2f}",
        f"pixel IoU {row.iou:.2f}",
        f"nuclei: {row.nuclei} true, {row.predicted_nuclei} predicted",
    )
    return figures.Example(dataset.to_rgb(image), truth, predicted, caption)


def write_charts(folder: Path, results: Results, dpi: int) -> None:
    """Write the figures that are drawn from tables."""
    write_figure(folder / "training_curves.png", figures.training_curves, results.history, dpi)
    write_figure(folder / "ap_by_iou_threshold.png", figures.average_precision_curves, results.ap_by_threshold, dpi)
    write_figure(folder / "iou_by_kind.png", figures.scores_by_kind, results.by_kind, results.per_image, dpi)


def write_figure(path: Path, draw: Callable[..., Figure], *arguments) -> None:
    """Write the figure that `draw(*arguments)` returns, in the project's style whatever the user's own settings."""
    with matplotlib.style.context(["default", figures.STYLE]):
        figures.write(draw(*arguments), path)


def read_pictures(folder: Path) -> dict[str, str]:
    """Return file name -> base64 of all PNGs of a folder."""
    return {path.name: base64.b64encode(path.read_bytes()).decode() for path in sorted(folder.glob("*.png"))}


def headline(metrics: Mapping) -> str:
    """Return the result in one sentence."""
    test = metrics["test"]
    unet, otsu = (test["instance"]["dsb_score"], test["pixel"]["iou"]), (test["otsu"]["dsb_score"], test["otsu"]["iou"])
    return (
        f"On {test['n_images']} test images the U-Net reaches a DSB score of {unet[0]:.3f} and a pixel IoU of "
        f"{unet[1]:.3f}; Otsu's threshold, a floor, reaches {otsu[0]:.3f} and {otsu[1]:.3f}."
    )


def score_rows(metrics: Mapping) -> list[tuple[str, list[float | None]]]:
    """Return (name, [U-Net, Otsu on validation, U-Net, Otsu on test]) of each of SCORES; None: not measured."""
    rows = []
    for score in SCORES:
        values = []
        for split in ("validation", "test"):
            otsu = None if score.group == "pixel_pooled" else metrics[split]["otsu"].get(score.key)
            values += [metrics[split][score.group][score.key], otsu]
        rows.append((score.name, values))
    return rows


def page(template: Path, **content) -> str:
    """Return a page as HTML. Filters: `score`, a number or a dash where there is none; `change`, with its sign."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value: "–" if value is None or pd.isna(value) else f"{value:.3f}"
    environment.filters["change"] = lambda value: "–" if pd.isna(value) else f"{value:+.3f}"
    return environment.get_template(template.name).render(content)


def render(results: Results, parameters: Mapping[str, object], pictures: Mapping[str, str]) -> str:
    """Return the report as HTML; `pictures` are file names -> base64, `parameters` as `params.flatten` gives them."""
    return page(
        TEMPLATE,
        headline=headline(results.metrics),
        metrics=results.metrics,
        audit=results.audit,
        scores=SCORES,
        score_rows=score_rows(results.metrics),
        by_kind=results.by_kind.sort_values(["n_images", "kind"], ascending=[False, True]).to_dict("records"),
        parameters={key: json.dumps(value) for key, value in parameters.items()},
        pictures=pictures,
    )


if __name__ == "__main__":
    stage.run(main)
