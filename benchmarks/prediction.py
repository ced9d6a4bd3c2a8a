"""How long does `nuclei-unet predict` take, and how much memory: both engines, and StarDist on the same files?

    python -m benchmarks.prediction [--stardist .venv-peers/bin/python]

Each row is a whole command, from the shell to the last file, as a user waits for it: start-up, reading, predicting,
measuring, writing label TIFFs and tables. Memory is the peak of the process. Files: the 65 test images as PNG, 1,000
tiles of 256x256 cut from them, one image of 512x512, and one of 8192x8192 made of such tiles. The second table is one
view of the network alone, without labelling, by engine, precision and threads.

StarDist (see benchmarks/peers.py, which trains it) reads the same PNGs, normalized as ours, and writes label TIFFs, but
no measurements. `thorough` takes six to nine times as long as the default and gets only the small
sets. Needs `dvc repro preprocess`. Writes benchmarks/results/prediction.md. Takes a quarter of an hour on two cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from nuclei_unet.images import to_rgb
from nuclei_unet.prediction import models
from pipeline import layout
from pipeline.dataset import archives, processed
from pipeline.machine import describe

RESULT = Path("benchmarks/results/prediction.md")
PREDICT = (sys.executable, "-m", "nuclei_unet", "predict", "--model", str(models.PRETRAINED))
COMMANDS = {
    "ONNX Runtime, fast": (*PREDICT, "--engine", "onnx", "--views", "fast"),
    "ONNX Runtime, thorough": (*PREDICT, "--engine", "onnx", "--views", "thorough"),
    "TensorFlow, fast": (*PREDICT, "--engine", "tensorflow", "--views", "fast"),
    "TensorFlow, thorough": (*PREDICT, "--engine", "tensorflow", "--views", "thorough"),
}
THOROUGH = ("one of 512x512", "65 test images")  # what is predicted with `thorough`, too
SIDES = (512, 1024)
LARGEST = 8192


def main() -> None:
    """Measure all commands on all sets of files, and the network alone; write the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stardist", help="Python of an environment with StarDist; default: leave it out")
    parser.add_argument("--stardist-run", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--network", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stardist_run:
        stardist(*arguments.stardist_run)
        return
    if arguments.network:
        print(network(*arguments.network))
        return
    commands = dict(COMMANDS)
    if arguments.stardist:
        commands["StarDist"] = (arguments.stardist, "-m", "benchmarks.prediction", "--stardist-run")
    with tempfile.TemporaryDirectory() as temporary:
        rows = []
        for name, folder in write_images(Path(temporary)).items():
            files = sorted(folder.iterdir())
            pixels = sum(image.shape[0] * image.shape[1] for image in map(read, files))
            for number, (method, command) in enumerate(commands.items()):
                if command[-1] == "thorough" and name not in THOROUGH:
                    continue
                seconds, memory = timed([*command, str(folder), str(Path(temporary, "out", name, str(number)))])
                rows.append(
                    {
                        "files": name,
                        "command": method,
                        "seconds": seconds,
                        "images/s": len(files) / seconds,
                        "megapixels/s": pixels / 1e6 / seconds,
                        "peak memory, MB": memory / 1e6,
                    }
                )
                print(rows[-1], flush=True)
    alone = []
    for engine, precision in (("onnx", "float32"), ("tensorflow", "float32"), ("tensorflow", "mixed_bfloat16")):
        for threads in (1, 2):
            command = [sys.executable, "-m", "benchmarks.prediction", "--network", engine, precision, str(threads)]
            row = {"engine": engine, "precision": precision, "threads": threads}
            for side in SIDES:
                done = subprocess.run([*command, str(side)], check=True, stdout=subprocess.PIPE, text=True)
                row[f"{side}x{side}, ms"] = float(done.stdout)
            alone.append(row)
            print(alone[-1], flush=True)
    text = "\n\n".join(
        [
            describe("onnxruntime"),
            "Whole commands:",
            pd.DataFrame(rows).to_markdown(index=False, floatfmt=("", "", ".1f", ".2f", ".2f", ".0f")),
            "One view of the network alone, the fastest of five:",
            pd.DataFrame(alone).to_markdown(index=False, floatfmt=".0f"),
        ]
    )
    RESULT.write_text(text + "\n")
    print(text)


# Starts the command from a small process: a child's peak memory is at least what its parent held when it started it.
STARTER = """
import resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, done.returncode)
"""


def timed(command: list[str]) -> tuple[float, int]:
    """Run a command; return seconds and peak memory in bytes."""
    environment = os.environ | {"TF_USE_LEGACY_KERAS": "1"} if "--stardist-run" in command else os.environ
    starter = [sys.executable, "-c", STARTER, *command]
    done = subprocess.run(starter, capture_output=True, text=True, env=environment, check=True)
    seconds, memory, code = done.stdout.split()
    if int(code):
        raise SystemExit(f"error: {' '.join(command)}: {done.stderr}")
    # Linux counts in KiB, macOS in bytes.
    return float(seconds), int(memory) * (1 if sys.platform == "darwin" else 1024)


def write_images(folder: Path) -> dict[str, Path]:
    """Write the sets of files; return their folders by name."""
    manifest = processed.read_manifest()
    test = manifest[manifest.split == "test"]
    sets = {name: folder / f"set{number}" for number, name in enumerate(
        ("one of 512x512", "65 test images", "1,000 of 256x256", f"one of {LARGEST}x{LARGEST}"))}  # fmt: skip
    one, tests, small, large = sets.values()
    for path in sets.values():
        path.mkdir()
    tiles = []
    with archives.open_archive(layout.TEST_ARCHIVE) as zipped:
        for image_id in test.image_id:
            rgb = to_rgb(archives.read_image(zipped, archives.image_member(image_id)))
            write(tests / f"{image_id}.png", rgb)
            if rgb.shape[:2] == (256, 256):
                tiles.append(rgb)
    for number in range(1000):
        write(small / f"{number:04}.png", tiles[number % len(tiles)])
    write(large / "large.png", mosaic(tiles, LARGEST))
    write(one / "one.png", mosaic(tiles, 512))
    return sets


def mosaic(tiles: list[np.ndarray], side: int) -> np.ndarray:
    """Return tiles of 256x256 side by side, uint8 (side, side, 3)."""
    image = np.empty((side, side, 3), np.uint8)
    count = side // 256
    for n in range(count * count):
        row, column = divmod(n, count)
        image[256 * row : 256 * (row + 1), 256 * column : 256 * (column + 1)] = tiles[n % len(tiles)]
    return image


def network(engine: str, precision: str, threads: str, side: str) -> float:
    """Return the milliseconds that one view of the network takes, the fastest of five."""
    opened = models.load(engine=engine, precision=precision, threads=int(threads))
    image = np.random.default_rng(0).uniform(0, 255, (1, int(side), int(side), 1)).astype(np.float32)
    opened.network(image)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        opened.network(image)
        seconds.append(time.perf_counter() - started)
    return 1000 * min(seconds)


def stardist(images: Path, results: Path) -> None:
    """Predict a folder of PNGs with the StarDist that `benchmarks.peers` trained; write label TIFFs."""
    import tifffile
    from stardist.models import StarDist2D

    from benchmarks.peers import STARDIST
    from nuclei_unet.images import normalize
    from pipeline import params

    settings = params.load()
    results.mkdir(parents=True)
    model = StarDist2D(None, name=STARDIST.name, basedir=str(STARDIST.parent))
    for path in sorted(images.iterdir()):
        grey = normalize(read(path), settings.preprocess).astype(np.float32) / 255
        tiles = tuple(max(side // 1024, 1) for side in grey.shape)
        labels, _ = model.predict_instances(grey, n_tiles=tiles, show_tile_progress=False)
        tifffile.imwrite(results / f"{path.stem}_labels.tif", labels, compression="zlib")


def read(path: Path) -> np.ndarray:
    """Read a PNG as RGB."""
    return cv2.imread(str(path))[..., ::-1]


def write(path: Path, rgb: np.ndarray) -> None:
    """Write RGB as PNG."""
    cv2.imwrite(str(path), rgb[..., ::-1])


if __name__ == "__main__":
    main()
