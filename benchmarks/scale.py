"""What do very many images, and very large slides, cost? Time, memory and disk by their number and size.

    python -m benchmarks.scale [images slides] [--counts 1000 5000 20000] [--sides 4096 8192]

Two parts, each a table of its own:
  images  `nuclei-unet predict` on many small images (64 x 64, three nuclei and noise), in --jobs processes
  slides  `nuclei-unet predict slide.zarr out.zarr` on drawn slides of which the middle quarter has nuclei
So images says what an image costs besides its pixels, and whether memory stays flat: seconds = start + images * cost
is fitted to all counts but the largest, and checked on that one. --scheduler takes the workers of a Dask cluster
instead of processes here; their memory is not seen.

Writes benchmarks/results/scale-PART.md. 20,000 images take about 10 minutes on 2 cores, a slide of 32,768 x 32,768 six.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import zarr

from benchmarks.measure import Measured, measure, save_table, write
from pipeline.dataset import synthetic
from pipeline.machine import describe

RESULTS = Path("benchmarks/results")
TILE = 1024


def main() -> None:
    """Measure, and write a table after each row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), help="default: all")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 5000, 20_000], help="of images")
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192], help="of slides; multiples of 4,096")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scheduler", help="of a Dask cluster; instead of processes here")
    arguments = parser.parse_args()
    for part in arguments.parts or PARTS:
        rows = []
        for row in PARTS[part](arguments):
            rows.append(row)
            table = pd.DataFrame(rows)
            says = cost(table) if part == "images" else ""
            shown = table.set_index(table.columns[0])
            save_table(RESULTS / f"scale-{part}.md", describe("distributed", "onnxruntime"), shown, says, digits=",.4g")


def cost(table: pd.DataFrame) -> str:
    """Fit seconds = start + images * cost to all counts but the largest; say what that says of the largest."""
    if len(table) < 3:
        return ""
    fitted, last = table[:-1], table.iloc[-1]
    slope, start = np.polyfit(fitted.images, fitted.seconds, 1)
    expected = start + slope * last.images
    return (
        f"{start:.1f} s + {slope * 1e3:.2f} ms an image, fitted without the largest, says {expected:.0f} s for "
        f"{last.images:,.0f} images; measured {last.seconds:.0f} s ({last.seconds / expected - 1:+.0%})."
    )


def as_row(measured: Measured, **values: object) -> dict:
    """Return a row of a table."""
    own, workers = measured.memory / 1e6, measured.child_memory / 1e6
    return values | {"seconds": measured.seconds, "peak memory, MB": own, "largest worker, MB": workers or own}


def predict(arguments: argparse.Namespace, source: Path, target: Path) -> Measured:
    """Run `nuclei-unet predict` where the arguments say."""
    where = ["--scheduler", arguments.scheduler] if arguments.scheduler else ["--jobs", arguments.jobs]
    return measure([sys.executable, "-m", "nuclei_unet", "predict", *where, source, target], target.parent / "log")


def draw(number: int) -> np.ndarray:
    """Return image `number`, uint8 (64, 64): three nuclei and noise; no two are equal."""
    rng = np.random.default_rng(number)
    nuclei = np.zeros((64, 64), np.float32)
    for x, y in ((16, 16), (44, 20), (28, 46)):
        centre = (x + int(rng.integers(-4, 5)), y + int(rng.integers(-4, 5)))
        cv2.ellipse(nuclei, centre, (int(rng.integers(6, 10)), 7), float(rng.uniform(0, 180)), 0, 360, 100, -1)
    light = cv2.GaussianBlur(nuclei + rng.uniform(10, 100), (0, 0), 1.2)
    return np.clip(light + rng.normal(0, 1.5, light.shape), 0, 255).astype(np.uint8)


def images(arguments: argparse.Namespace) -> Iterator[dict]:
    """Predict many small images."""
    for count in arguments.counts:
        with tempfile.TemporaryDirectory() as name:
            for number in range(count):
                write(Path(name, "images", f"{number // 1000:04}", f"{number:06}.png"), draw(number))
            results = Path(name, "results")
            measured = predict(arguments, Path(name, "images"), results)
            disk = sum(path.stat().st_size for path in results.rglob("*") if path.is_file())
            yield as_row(measured, images=count) | {"disk, kB an image": disk / count / 1e3}


def slides(arguments: argparse.Namespace) -> Iterator[dict]:
    """Predict slides of which the middle quarter has nuclei; the other chunks are not stored, as scanners do."""
    for side in arguments.sides:
        with tempfile.TemporaryDirectory() as name:
            out = Path(name, "out.zarr")
            measured = predict(arguments, draw_slide(Path(name, "slide.zarr"), side), out)
            speed = side**2 / 1e6 / measured.seconds
            nuclei = json.loads((out / "run.json").read_text())["nuclei"]
            yield as_row(measured, side=side) | {"megapixels/s": speed, "of the quarter": speed / 4, "nuclei": nuclei}


def draw_slide(path: Path, side: int) -> Path:
    """Write an OME-Zarr of one level, uint8 (side, side)."""
    fields = [image[..., 0] for _, image, _ in synthetic.held_out_images(40, 5) if image.shape[:2] == (256, 256)][:16]
    tile = np.block([fields[row : row + 4] for row in range(0, 16, 4)])
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    array = group.create_array("0", shape=(side, side), dtype=np.uint8, chunks=(TILE, TILE), fill_value=0)
    for top in range(side // 4, 3 * side // 4, TILE):
        for left in range(side // 4, 3 * side // 4, TILE):
            array[top : top + TILE, left : left + TILE] = tile
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = {"type": "scale", "scale": [0.5, 0.5]}
    level = {"path": "0", "coordinateTransformations": [scale]}
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [level]}]
    return path


PARTS = {"images": images, "slides": slides}


if __name__ == "__main__":
    main()
