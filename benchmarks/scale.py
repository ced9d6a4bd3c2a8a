"""What do 1,000, 5,000, 20,000 images cost? Time, memory and disk an image, by the number of images.

    python -m benchmarks.scale [--counts 1000 5000 20000] [--jobs 2] [--only predict preprocess input]

Images are small and drawn (three nuclei and noise, 64 x 64 pixels to predict and 128 x 128 to preprocess; no two are
equal): what is asked here is what each image costs besides its pixels, and whether memory stays flat. Three parts:
  predict      nuclei-unet predict, in --jobs processes: a Dask cluster of its own
  preprocess   the stage, from a zip with masks
  input        drawing training crops of 256 x 256 from the images that preprocess wrote, and from the project's own
The cost model, seconds = start + images * cost, is fitted to all counts but the largest, and checked on that one.
Writes benchmarks/results/scale.md. With 20,000 images it takes about 10 minutes on 2 cores, with 100,000 another 45.
"""

import argparse
import csv
import sys
import tempfile
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks import memory
from nuclei_unet.formats.run_lengths import encode_run_lengths
from pipeline import layout, process
from pipeline.dataset import archives, processed
from pipeline.machine import describe
from pipeline.tools.project import copy_project

RESULT = Path("benchmarks/results/scale.md")
SIDE = 64
CROPS, WARM = 800, 160  # training crops that are drawn, after some to warm up
PARTS = ("predict", "preprocess", "input")


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = []
    for count in arguments.counts:
        with tempfile.TemporaryDirectory(prefix="scale-") as name:
            for part in arguments.only:
                rows.append({"part": part, "images": count} | MEASURE[part](Path(name), count, arguments.jobs))
                write(rows, arguments.output)
    if "input" in arguments.only and (layout.PROCESSED / processed.MANIFEST).is_file():
        with tempfile.TemporaryDirectory() as name:
            count = len(processed.read_split("train"))
            rows.append(
                {"part": "input, the images of this project", "images": count} | crops(Path.cwd(), Path(name, "log"))
            )
    write(rows, arguments.output)
    print(arguments.output.read_text())


def write(rows: list[dict], output: Path) -> None:
    """Write the tables, after each row: a run takes long."""
    print(rows[-1], flush=True)
    table = pd.DataFrame(rows).sort_values(["part", "images"], ascending=[False, True])
    text = [describe("distributed"), "", table.to_markdown(index=False, floatfmt=".4g"), "", *check(table)]
    output.write_text("\n".join(text) + "\n")


def check(table: pd.DataFrame) -> list[str]:
    """Fit seconds = start + images * cost to all counts but the largest; return what that says of the largest."""
    found = []
    for part, rows in table.groupby("part", sort=False):
        if len(rows) < 3 or part == "input":  # that is limited by what memory holds
            continue
        *fitted, last = rows.itertuples()
        cost, start = np.polyfit([row.images for row in fitted], [row.seconds for row in fitted], 1)
        expected = start + cost * last.images
        off = last.seconds / expected - 1
        found.append(
            f"- {part}: {start:.1f} s + {cost * 1e3:.2f} ms an image, fitted without the largest, says "
            f"{expected:.0f} s for {last.images:,} images; measured {last.seconds:.0f} s ({off:+.0%})."
        )
    return found


def draw(number: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return image `number`, uint8 (side, side), and its label image: three nuclei and noise."""
    rng = np.random.default_rng(number)
    labels = np.zeros((side, side), np.uint16)
    for label, (x, y) in enumerate([(16, 16), (44, 20), (28, 46)], 1):
        centre = (x + int(rng.integers(-4, 5)), y + int(rng.integers(-4, 5)))
        cv2.ellipse(labels, centre, (int(rng.integers(6, 10)), 7), float(rng.uniform(0, 180)), 0, 360, label, -1)
    # Of a brightness of its own, so that few look as if they were cut from the same frame.
    light = cv2.GaussianBlur((labels > 0).astype(np.float32) * 100 + rng.uniform(10, 100), (0, 0), 1.2)
    return np.clip(light + rng.normal(0, 1.5, labels.shape), 0, 255).astype(np.uint8), labels


def predict(folder: Path, count: int, jobs: int) -> dict:
    """Predict `count` images with the command."""
    images = folder / "images"
    for number in tqdm(range(count), "draw", disable=None):
        path = images / f"{number // 1000:04}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), draw(number, SIDE)[0])
    command = ["-m", "nuclei_unet", "predict", images, folder / "results", "--engine", "onnx", "--jobs", jobs]
    found = run(command, Path.cwd(), folder / "predict.log")
    return found | {"disk, kB an image": disk(folder / "results") / count / 1e3}


def preprocess(folder: Path, count: int, _: int) -> dict:
    """Run the stage on a zip of `count` images, and 10 test images."""
    project = folder / "project"
    copy_project(Path.cwd(), project)
    raw = project / layout.RAW
    raw.mkdir(parents=True)
    write_raw(raw, count)
    found = run(["-m", "pipeline.preprocess"], project, folder / "preprocess.log")
    return found | {"disk, kB an image": disk(project / layout.PROCESSED) / count / 1e3}


def write_raw(raw: Path, count: int) -> None:
    """Write what the stage reads."""
    with zipfile.ZipFile(raw / layout.TRAIN_ARCHIVE.name, "w") as train:
        for number in tqdm(range(count), "draw", disable=None):
            image, labels = draw(number, 2 * SIDE)
            name = f"train{number:06}"
            train.writestr(archives.image_member(name), png(image))
            for label in range(1, 4):
                train.writestr(f"{name}/masks/{label}.png", png((labels == label).astype(np.uint8) * 255))
    with (
        zipfile.ZipFile(raw / layout.TEST_ARCHIVE.name, "w") as test,
        (raw / layout.SOLUTION.name).open("w", newline="") as file,
    ):
        solution = csv.writer(file, lineterminator="\n")
        solution.writerow(["ImageId", "EncodedPixels", "Height", "Width", "Usage"])
        for number in range(count, count + 10):
            image, labels = draw(number, 2 * SIDE)
            test.writestr(archives.image_member(f"test{number:06}"), png(image))
            for label in range(1, 4):
                lengths = encode_run_lengths(labels == label)
                solution.writerow([f"test{number:06}", lengths, 2 * SIDE, 2 * SIDE, "Public"])


def training_input(folder: Path, count: int, _: int) -> dict:
    """Draw crops for training from what preprocess wrote."""
    return crops(folder / "project", folder / "input.log")


def crops(project: Path, log: Path) -> dict:
    """Draw crops from the images of a project: from memory, then from the disk, as if memory held none.

    There, the first round computes what the second one finds in a file.
    """
    code = f"""
import time
from nuclei_unet.training import crops
from nuclei_unet.network import runtime
from pipeline import layout, params
from pipeline.dataset import processed
settings = params.load().train
runtime.configure(settings)
for crops.MEMORY, passes in ((crops.MEMORY, 1), (0, 2)):
    source = crops.Crops(processed.read_split("train"), settings, layout.RESUME)
    for _ in range(passes):
        batches = iter(crops.as_dataset(source.draw, range({CROPS + WARM}), settings, 1))
        for _ in range({WARM} // settings.batch_size): next(batches)
        started = time.perf_counter()
        for _ in batches: pass
        print("seconds", time.perf_counter() - started)
"""
    found = run(["-c", code], project, log)
    times = [float(part.split()[0]) / CROPS * 1e3 for part in log.read_text().split("seconds")[1:]]
    return found | dict(zip(("ms a crop", "disk, first round", "disk, second round"), times, strict=True))


def png(pixels: np.ndarray) -> bytes:
    """Return an image as PNG."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def disk(folder: Path) -> int:
    """Return the bytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(command: list, cwd: Path, log: Path) -> dict:
    """Run Python; return what is known of it as a row of the table."""
    command = [sys.executable, *map(str, command)]
    watched = memory.watch(command, log, cwd=cwd, env=process.environment())
    return {
        "seconds": watched.seconds,
        "peak memory, MB": watched.own / 1e6,
        "of a worker, MB": watched.child / 1e6 or float("nan"),
    }


MEASURE = {"predict": predict, "preprocess": preprocess, "input": training_input}


if __name__ == "__main__":
    main()
