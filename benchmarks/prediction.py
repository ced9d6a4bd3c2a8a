"""How fast are nuclei found, and how much memory does that take, from small images to very large ones?

    python -m benchmarks.prediction [--largest 8192]

Each size runs in a process of its own, with the views of params.yaml and with a single one: an RGB image (test images
side by side) goes from pixels in memory through `nuclei_unet.Segmenter` to a label image. Seconds are the better of two
runs (one run from 4096 on). Memory is the peak of the process above what it held with the model loaded and one small
image predicted. "Batch" is 64 images of 256x256, one after another. Needs `dvc repro evaluate`. Writes
benchmarks/results/prediction.md.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from nuclei_unet.images import to_rgb
from nuclei_unet.network import runtime
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline import layout, params
from pipeline.dataset import archives, processed
from pipeline.machine import describe, peak_bytes

RESULT = Path("benchmarks/results/prediction.md")


def main() -> None:
    """Write the table as Markdown, or, with `--size`, measure one size and print its row as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=8192)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--one-view", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.size:
        print(json.dumps(measure(arguments.size, arguments.count, arguments.one_view)))
        return
    sizes = [256 * 2**n for n in range(20) if 256 * 2**n <= arguments.largest]
    rows = []
    for flags, views in ((["--one-view"], "one"), ([], "default")):
        for size, count in [(256, 64), *((size, 1) for size in sizes)]:
            options = ["--size", str(size), "--count", str(count), *flags]
            command = [sys.executable, "-m", "benchmarks.prediction", *options]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            name = f"{size}x{size}" + (f", batch of {count}" if count > 1 else "")
            rows.append({"views": views, "image": name, **json.loads(output.splitlines()[-1])})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows).set_index(["views", "image"]).reset_index()
    text = f"{describe()}\n\n{table.to_markdown(index=False, floatfmt='.2f')}"
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text + "\n")
    print(text)


def measure(size: int, count: int, one_view: bool) -> dict[str, float]:
    """Predict `count` images of `size` pixels' side; return seconds, megapixels a second and memory."""
    settings = params.load()
    runtime.configure(settings.train)
    views = settings.evaluate.model_copy(update={"orientations": 1, "scales": (1.0,)} if one_view else {})
    segmenter = Segmenter.load(layout.MODEL, predict=views, precision=settings.train.precision)
    images = [mosaic(size, start=n) for n in range(count)]

    segmenter(images[0][:64, :64])
    before = peak()
    seconds = []
    for _ in range(1 if size >= 4096 else 2):
        started = time.perf_counter()
        nuclei = sum(int(segmenter(image).max()) for image in images)
        seconds.append(time.perf_counter() - started)
    return {
        "nuclei": nuclei,
        "seconds": min(seconds),
        "megapixels/s": size * size * count / 1e6 / min(seconds),
        "image, MB": images[0].nbytes / 1e6,
        "peak memory above the model's, MB": (peak() - before) / 1e6,
    }


def mosaic(size: int, start: int) -> np.ndarray:
    """Return fluorescent test images of 256x256 side by side, uint8 (size, size, 3)."""
    manifest = processed.read_manifest()
    chosen = (manifest.split == "test") & (manifest.height == 256) & (manifest.width == 256)
    with archives.open_archive(layout.TEST_ARCHIVE) as zipped:
        tiles = [to_rgb(archives.read_image(zipped, archives.image_member(i))) for i in manifest.image_id[chosen]]
    image = np.empty((size, size, 3), np.uint8)
    side = size // 256
    for n in range(side * side):
        row, column = divmod(n, side)
        image[256 * row : 256 * (row + 1), 256 * column : 256 * (column + 1)] = tiles[(start + n) % len(tiles)]
    return image


def peak() -> int:
    """Return the peak memory of this process so far, bytes."""
    return peak_bytes(resource.getrusage(resource.RUSAGE_SELF))


if __name__ == "__main__":
    main()
