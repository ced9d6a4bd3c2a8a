"""What `nuclei-unet predict` writes: for one plane, and for all of them together."""

import base64
import contextlib
import csv
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nuclei_unet.commands import targets
from nuclei_unet.commands.summary import Item, page
from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats import coco, geojson, kaggle, label_tiff, overlay, rois, tables, thumbnail, zarr_labels
from nuclei_unet.formats.planes import Plane
from nuclei_unet.prediction.checks import warnings
from nuclei_unet.prediction.segmenter import Segmenter

# Written for each plane: what `--write` calls it, and the end of the file's name.
LABELS = targets.EACH["tiff"]
EACH = {name: targets.EACH[name] for name in ("geojson", "rois", "ome-zarr")} | {"overlay": "_overlay.png"}
# Written once for all planes.
TOGETHER = {"coco": "coco.json", "rle": "nuclei_rle.csv", "parquet": "measurements.parquet"}
# What some of them need, and the extra that has it.
NEEDS = {"ome-zarr": ("zarr", "zarr"), "parquet": ("pyarrow", "parquet")}
MEASUREMENTS, SUMMARY, RUN = "measurements.csv", "summary.html", "run.json"
# What a second start needs to know. Hidden: users need not look in there.
STATE = ".nuclei-unet"
PACKAGES = ("numpy", "scipy", "scikit-image", "opencv-python-headless", "onnxruntime", "tensorflow", "tifffile")


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

    def write(self, folder: Path) -> None:
        """Keep it, for a second start."""
        with fresh_file(_state(folder, self.name, ".json")) as path:
            path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def read(folder: Path, name: str, key: str) -> Result | None:
    """Return the result of a plane if it was made before in the same way, and its files are there."""
    try:
        found = json.loads(_state(folder, name, ".json").read_text(encoding="utf-8"))
        result = Result(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})
    except (OSError, ValueError, TypeError):
        return None
    complete = all((folder / output).exists() for output in result.outputs) and _state(folder, name, ".csv").exists()
    return result if result.key == key and result.error is None and complete else None


def segment(segmenter: Segmenter, plane: Plane, result: Result, folder: Path, formats: Sequence[str]) -> Result:
    """Find the nuclei of one plane, write its files, and return the result; `result` says what is known before."""
    started = time.monotonic()
    seen, channels = plane.read()
    labels = segmenter(seen, scale=result.scale)
    names = plane.channels
    table = segmenter.measure(labels, channels, pixel_size=result.pixel_size, channels=names)
    writers = {
        LABELS: lambda path: label_tiff.write_labels(path, labels, result.pixel_size),
        EACH["geojson"]: lambda path: geojson.write(path, labels, table),
        EACH["rois"]: lambda path: rois.write(path, labels),
        EACH["overlay"]: lambda path: overlay.write(path, seen, labels),
        EACH["ome-zarr"]: lambda path: zarr_labels.write(path, labels, result.pixel_size, channels),
    }
    outputs = [f"{result.name}{ending}" for ending in (LABELS, *(EACH[name] for name in EACH if name in formats))]
    for output in outputs:
        writers[output.removeprefix(result.name)](folder / output)
    diameters = segmenter.card.diameters
    told = warnings(seen, labels, (diameters.low, diameters.high) if diameters else None)
    _write_rows(_state(folder, result.name, ".csv"), result, table)
    done = Result(
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
    done.write(folder)
    return done


def finish(results: Sequence[Result], folder: Path, formats: Sequence[str], facts: Mapping[str, dict]) -> None:
    """Write what is about all planes together: tables, summary.html, run.json, and coco and rle if wanted."""
    done = [result for result in results if result.error is None]
    columns = _columns(folder, done)
    with fresh_file(folder / MEASUREMENTS) as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in _rows(folder, done):
            writer.writerow(row)
    if "parquet" in formats:
        tables.write_parquet(folder / MEASUREMENTS, folder / TOGETHER["parquet"])
    if "coco" in formats:
        coco.write(folder / TOGETHER["coco"], _label_images(folder, done))
    if "rle" in formats:
        kaggle.write_csv(folder / TOGETHER["rle"], _label_images(folder, done))
    with fresh_file(folder / SUMMARY) as path:
        path.write_text(page([_item(result) for result in results], _shown(facts, results)), encoding="utf-8")
    hidden = ("key", "thumbnail", "diameters")
    images = [{k: v for k, v in asdict(result).items() if k not in hidden} for result in results]
    with fresh_file(folder / RUN) as path:
        path.write_text(json.dumps({**facts, "images": images}, indent=1) + "\n", encoding="utf-8")


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


def _columns(folder: Path, results: Iterable[Result]) -> list[str]:
    """Return the columns of all results; images of different kinds have different channels."""
    columns: dict[str, None] = {}
    for result in results:
        with _state(folder, result.name, ".csv").open(encoding="utf-8", newline="") as file:
            columns |= dict.fromkeys(next(csv.reader(file), []))
    return list(columns) or ["image", "label"]


def _rows(folder: Path, results: Iterable[Result]) -> Iterator[dict[str, str]]:
    for result in results:
        with _state(folder, result.name, ".csv").open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file)


def _label_images(folder: Path, results: Iterable[Result]) -> Iterator[tuple[str, np.ndarray]]:
    for result in results:
        yield result.name, label_tiff.read_labels(folder / f"{result.name}{LABELS}")


def _item(result: Result) -> Item:
    names = Item.__dataclass_fields__
    return Item(**{name: value for name, value in asdict(result).items() if name in names})


def _shown(facts: Mapping[str, dict], results: Iterable[Result]) -> dict[str, str]:
    """Return what the page says about the run; run.json has all of it."""
    model = facts["model"]
    commit = f", commit {model['commit'][:7]}" if model["commit"] else ""
    values = {name: value for name, value in facts["parameters"].items() if value and name != "engine"}
    chosen = [f"{name} {' '.join(value) if isinstance(value, tuple) else value}" for name, value in values.items()]
    return {
        "model": f"{model['name']} (SHA-256 {model['sha256'][:12]}…{commit})",
        "computed by": "; ".join(sorted({result.engine for result in results if result.engine})),
        "settings": ", ".join(chosen) or "none: as they come",
        "more": f"{RUN} has versions, settings and what is known of each image",
    }


def check_formats(names: Sequence[str]) -> None:
    """Raise InputError if a format is unknown, or needs a package that is not installed."""
    unknown = [name for name in names if name not in (*EACH, *TOGETHER)]
    if unknown:
        raise InputError(f"--write {unknown[0]}: not a format; choose from {', '.join((*EACH, *TOGETHER))}")
    for name, (package, extra) in NEEDS.items():
        if name in names and not find_spec(package):
            raise InputError(f"--write {name}: needs {package}; pip install 'nuclei-unet[{extra}]'")
