"""What a run writes about all of its images together: tables of measurements, run.json and the summary page."""

import csv
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nuclei_unet.files import fresh_file
from nuclei_unet.formats import label_tiff, parquet, tables
from nuclei_unet.formats.registry import FORMATS
from nuclei_unet.results.record import MEASUREMENTS, RUN, SUMMARY, Result, load, state_file
from nuclei_unet.results.summary import page

# Of a result's record, these are not for run.json, and `computed_by` stands there once.
HIDDEN = ("key", "computed_by", "thumbnail", "diameters", "before")


def keep_rows(folder: Path, name: str, table: Mapping[str, np.ndarray]) -> None:
    """Keep the measurements of a plane for the table of all."""
    with fresh_file(state_file(folder, name, ".csv")) as partial:
        partial.write_bytes(tables.csv_bytes({"image": np.array([name] * len(table["label"]), object), **table}))


def finish(results: Sequence[Result], folder: Path, formats: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Write the tables, files of formats that hold all images, summary.html and run.json.

    `results` need only say names and what went wrong; `facts` are about the run.
    """
    done = [result.name for result in results if result.error is None]
    columns = _columns(folder, done)
    with fresh_file(folder / MEASUREMENTS) as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for name in done:
            with state_file(folder, name, ".csv").open(encoding="utf-8", newline="") as rows:
                writer.writerows(csv.DictReader(rows))
    for name in formats:
        if name == "parquet":
            nuclei = sum(result.count or 0 for result in results)
            parquet.write_csv(folder / MEASUREMENTS, folder / FORMATS[name].ending, nuclei)
        elif FORMATS[name].together:
            labels = ((image, label_tiff.read_labels(folder / f"{image}{FORMATS['tiff'].ending}")) for image in done)
            FORMATS[name].write_all(folder / FORMATS[name].ending, labels)
    # Read one at a time: all of them would not fit into memory.
    with fresh_file(folder / SUMMARY) as path:
        path.write_text(page((load(folder, result.name) for result in results), _shown(facts)), encoding="utf-8")
    with fresh_file(folder / RUN) as path, path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(facts, indent=1).removesuffix("\n}") + ',\n "images": [')
        for number, result in enumerate(results):
            values = asdict(load(folder, result.name))
            shown = {name: value for name, value in values.items() if name not in HIDDEN}
            file.write(("," if number else "") + "\n" + textwrap.indent(json.dumps(shown, indent=1), "  "))
        file.write("\n ]\n}\n")


def _columns(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the columns of all results; images of different types have different channels."""
    columns: dict[str, None] = {}
    for name in names:
        with state_file(folder, name, ".csv").open(encoding="utf-8", newline="") as file:
            columns |= dict.fromkeys(next(csv.reader(file), []))
    return list(columns) or ["image", "label"]


def _shown(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return what the page says about the run; run.json has all of it."""
    model = facts["model"]
    commit = f", commit {model['commit'][:7]}" if model["commit"] else ""
    values = {name: value for name, value in facts["parameters"].items() if value}
    chosen = [f"{name} {' '.join(value) if isinstance(value, tuple) else value}" for name, value in values.items()]
    return {
        "model": f"{model['name']} (SHA-256 {model['sha256'][:12]}…{commit})",
        "computed by": facts["computed_by"],
        "settings": ", ".join(chosen) or "none: as they come",
        "more": f"{RUN} has versions, settings and what is known of each image",
    }
