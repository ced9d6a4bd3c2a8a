"""What `nuclei-unet predict` writes: for one plane, and for all of them together."""

import base64
import contextlib
import csv
import json
import os
import platform
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO

import numpy as np

from nuclei_unet.files import fresh_file
from nuclei_unet.formats import label_tiff, parquet, tables, thumbnail
from nuclei_unet.formats.planes import Plane
from nuclei_unet.formats.registry import FORMATS
from nuclei_unet.prediction.checks import warnings
from nuclei_unet.prediction.segmenter import Segmenter
from nuclei_unet.results.summary import Item, page

# Written for each plane: what `--write` calls it, and the end of the file's name.
LABELS = FORMATS["tiff"].ending
EACH = {name: one.ending for name, one in FORMATS.items() if not one.together and name != "tiff"}
# Written once for all planes.
TOGETHER = {name: one.ending for name, one in FORMATS.items() if one.together}
MEASUREMENTS, SUMMARY, RUN = "measurements.csv", "summary.html", "run.json"
# What a second start needs to know. Hidden: users need not look in there.
STATE = ".nuclei-unet"
PACKAGES = ("numpy", "scipy", "scikit-image", "opencv-python-headless", "onnxruntime", "tensorflow", "tifffile")


@dataclass(frozen=True)
class Outcome:
    """What of a result is kept in memory: there may be a million of them. The rest is on the disk."""

    name: str
    count: int
    plane: str
    engine: str
    warned: bool
    error: str | None
    before: bool  # done by an earlier run


@dataclass(frozen=True)
class Result:
    """What became of one plane of an image, or of a file that could not be opened. `key` says how it was made."""

    name: str  # of its files, with subfolders
    source: str
    key: str = ""
    plane: str = ""
    axes: str = ""
    shape: tuple[int, ...] = ()
    height: int = 0
    width: int = 0
    channel: str = ""
    pixel_size: float | None = None
    pixel_size_from: str = "unknown"
    scale: float = 1.0
    engine: str = ""
    count: int | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str | None = None
    outputs: tuple[str, ...] = ()
    diameters: tuple[float, ...] = ()
    thumbnail: str = field(default="", repr=False)

    def keep(self, folder: Path) -> Outcome:
        """Write it, for the end of the run and for a second start; return what is kept in memory."""
        with fresh_file(_state(folder, self.name, ".json")) as path:
            path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return self.outcome()

    def outcome(self, before: bool = False) -> Outcome:
        """Return what is kept in memory."""
        warned = bool(self.warnings)
        return Outcome(self.name, self.count or 0, self.plane, self.engine, warned, self.error, before)


def _load(folder: Path, name: str) -> Result:
    found = json.loads(_state(folder, name, ".json").read_text(encoding="utf-8"))
    return Result(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})


def read(folder: Path, name: str, key: str) -> Result | None:
    """Return the result of a plane if it was made before in the same way, and its files are there."""
    try:
        result = _load(folder, name)
    except (OSError, ValueError, TypeError):
        return None
    complete = all((folder / output).exists() for output in result.outputs) and _state(folder, name, ".csv").exists()
    return result if result.key == key and result.error is None and complete else None


def segment(segmenter: Segmenter, plane: Plane, result: Result, folder: Path, formats: Sequence[str]) -> Result:
    """Find the nuclei of one plane, write its files, and return the result to keep; `result` is what is known."""
    started = time.monotonic()
    seen, channels = plane.read()
    labels = segmenter(seen, scale=result.scale)
    names = plane.channels
    table = segmenter.measure(labels, channels, pixel_size=result.pixel_size, channels=names)
    written = [name for name in FORMATS if name == "tiff" or (name in formats and name in EACH)]
    for name in written:
        known = {"pixel_size": result.pixel_size, "image": seen, "channels": channels, "measurements": table}
        FORMATS[name].write(folder, result.name, labels, **known)
    outputs = [f"{result.name}{FORMATS[name].ending}" for name in written]
    diameters = segmenter.metadata.diameters
    told = warnings(seen, labels, (diameters.low, diameters.high) if diameters else None)
    _write_rows(_state(folder, result.name, ".csv"), result, table)
    return Result(
        **asdict(result)
        | {
            "height": labels.shape[0],
            "width": labels.shape[1],
            "count": int(labels.max(initial=0)),
            "seconds": round(time.monotonic() - started, 3),
            "warnings": (*result.warnings, *told),
            "outputs": tuple(outputs),
            "diameters": tuple(np.round(table["equivalent_diameter_area"], 2).tolist()),
            "thumbnail": base64.b64encode(thumbnail.thumbnail(seen, labels)).decode(),
        }
    )


def finish(outcomes: Sequence[Outcome], folder: Path, formats: Sequence[str], facts: Mapping[str, dict]) -> None:
    """Write what is about all planes together: tables, summary.html, run.json, and coco and rle if wanted."""
    done = [outcome.name for outcome in outcomes if outcome.error is None]
    columns = _columns(folder, done)
    with fresh_file(folder / MEASUREMENTS) as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in _rows(folder, done):
            writer.writerow(row)
    if "parquet" in formats:
        rows = sum(outcome.count for outcome in outcomes)
        parquet.write_csv(folder / MEASUREMENTS, folder / TOGETHER["parquet"], rows)
    for name in ("coco", "rle"):
        if name in formats:
            FORMATS[name].write_all(folder / TOGETHER[name], _label_images(folder, done))
    # Read one at a time: all of them would not fit into memory.
    results = (_load(folder, outcome.name) for outcome in outcomes)
    with fresh_file(folder / SUMMARY) as path:
        path.write_text(page(map(_item, results), _shown(facts, outcomes)), encoding="utf-8")
    results = (_load(folder, outcome.name) for outcome in outcomes)
    with fresh_file(folder / RUN) as path, path.open("w", encoding="utf-8") as file:
        _write_run(file, facts, results)


def _write_run(file: TextIO, facts: Mapping[str, dict], results: Iterable[Result]) -> None:
    """Write the facts about the run and about each image as JSON, an image at a time."""
    hidden = ("key", "thumbnail", "diameters")
    file.write(json.dumps(facts, indent=1).removesuffix("\n}") + ',\n "images": [')
    for number, result in enumerate(results):
        shown = {name: value for name, value in asdict(result).items() if name not in hidden}
        file.write(("," if number else "") + "\n" + textwrap.indent(json.dumps(shown, indent=1), "  "))
    file.write("\n ]\n}\n")


def versions() -> dict[str, str]:
    """Return the versions of what shapes the results."""
    found = {"python": platform.python_version()}
    for package in ("nuclei-unet", *PACKAGES):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def fatal(error: OSError, folder: Path) -> bool:
    """Tell whether an error is about the disk or the folder of results, so that no other image can be written."""
    name = os.fspath(error.filename) if error.filename else ""
    return not name or Path(name).absolute().is_relative_to(folder.absolute())


def _state(folder: Path, name: str, ending: str) -> Path:
    return folder / STATE / f"{name}{ending}"


def _write_rows(path: Path, result: Result, table: Mapping[str, np.ndarray]) -> None:
    count = len(table["label"])
    with fresh_file(path) as partial:
        partial.write_bytes(tables.csv_bytes({"image": np.array([result.name] * count, object), **table}))


def _columns(folder: Path, names: Iterable[str]) -> list[str]:
    """Return the columns of all results; images of different kinds have different channels."""
    columns: dict[str, None] = {}
    for name in names:
        with _state(folder, name, ".csv").open(encoding="utf-8", newline="") as file:
            columns |= dict.fromkeys(next(csv.reader(file), []))
    return list(columns) or ["image", "label"]


def _rows(folder: Path, names: Iterable[str]) -> Iterator[dict[str, str]]:
    for name in names:
        with _state(folder, name, ".csv").open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _label_images(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        yield name, label_tiff.read_labels(folder / f"{name}{LABELS}")


def _item(result: Result) -> Item:
    item = Item(**{part.name: getattr(result, part.name) for part in fields(Item)})
    return replace(item, diameters=np.asarray(item.diameters, np.float32))


def _shown(facts: Mapping[str, dict], outcomes: Iterable[Outcome]) -> dict[str, str]:
    """Return what the page says about the run; run.json has all of it."""
    model = facts["model"]
    commit = f", commit {model['commit'][:7]}" if model["commit"] else ""
    values = {name: value for name, value in facts["parameters"].items() if value and name != "engine"}
    chosen = [f"{name} {' '.join(value) if isinstance(value, tuple) else value}" for name, value in values.items()]
    return {
        "model": f"{model['name']} (SHA-256 {model['sha256'][:12]}…{commit})",
        "computed by": "; ".join(sorted({outcome.engine for outcome in outcomes if outcome.engine})),
        "settings": ", ".join(chosen) or "none: as they come",
        "more": f"{RUN} has versions, settings and what is known of each image",
    }
