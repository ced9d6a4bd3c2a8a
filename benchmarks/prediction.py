"""How long does `nuclei-unet predict` take, and how much memory, by the size of the images?

    python -m benchmarks.prediction [--against REVISION] [--rounds 3]

Each row is a whole command, from the shell to the last file, as a user waits for it: start-up, reading, predicting,
measuring, writing label TIFFs and tables. Files: the 65 test images as PNG, 1,000 tiles of 256x256 cut from them, one
image of 512x512, and one of 8192x8192 made of such tiles. The second table is the network alone, on one version of an
image.

With --against, the package and the model of another revision are measured in turn with this one, --rounds times, in one
run: only pairs that ran beside each other can be compared on a machine that others use, too. Medians count.
benchmarks.peers has the speed of StarDist beside ours.

Needs `dvc repro preprocess`. Writes benchmarks/results/prediction.md; takes about 10 minutes on 2 cores.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.measure import measure, save_table, write
from nuclei_unet.images import to_rgb
from nuclei_unet.prediction import models
from pipeline import layout
from pipeline.dataset import archives, processed
from pipeline.git import git
from pipeline.machine import describe

RESULT = Path("benchmarks/results/prediction.md")
ONE, TEST, MANY, LARGE = "one of 512x512", "65 test images", "1,000 of 256x256", "one of 8192x8192"
SIDES = (256, 512, 1024)  # px, of the images for the network alone


def main() -> None:
    """Measure all commands on all sets of files, and the network alone; write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="REVISION", help="measure this git revision beside the working tree")
    parser.add_argument("--rounds", type=int, default=1, help="how often each command runs")
    parser.add_argument("--sets", nargs="+", choices=(ONE, TEST, MANY, LARGE), default=(ONE, TEST, MANY, LARGE))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        checkouts = {"": Path.cwd()}
        if arguments.against:
            checkouts[f", {arguments.against}"] = checkout(arguments.against, Path(temporary, "other"))
        images = write_images(Path(temporary))
        rows = []
        for name in arguments.sets:
            rows += whole_commands(name, images[name], commands(checkouts), arguments.rounds)
    save_table(
        RESULT,
        describe("onnxruntime"),
        "Whole commands:",
        pd.DataFrame(rows).set_index("files"),
        "The network alone, on one version of an image, the fastest of seven, ms:",
        pd.DataFrame([network_alone(threads) for threads in (1, 2)]).set_index("threads").round(),
    )


def checkout(revision: str, folder: Path) -> Path:
    """Write the files of a git revision to a folder; return it."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", git("rev-parse", revision).strip()], check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def commands(checkouts: dict[str, Path]) -> dict[str, tuple[list[str], Path]]:
    """Return the commands that predict files, and where each runs."""
    predict = [sys.executable, "-m", "nuclei_unet", "predict", "--overwrite"]
    runs = {f"nuclei-unet{label}": (predict, folder) for label, folder in checkouts.items()}
    return runs | {"nuclei-unet --fast": ([*predict, "--fast"], Path.cwd())}


def whole_commands(name: str, images: Path, runs: dict[str, tuple[list[str], Path]], rounds: int) -> list[dict]:
    """Run each command on a folder of images, in turn; return a row each."""
    files = sorted(images.iterdir())
    megapixels = sum(np.prod(Image.open(path).size) for path in files) / 1e6
    measured = {label: [] for label in runs}
    for number in range(rounds):
        for label, (command, folder) in runs.items():
            out = images.with_name(f"{images.name}-{number}-{label.replace('/', '_')}")
            variables = os.environ | {"PYTHONPATH": str(folder)}
            log = images.with_name("log")
            measured[label].append(measure([*command, images, out], log, cwd=folder, env=variables))
            print(name, label, measured[label][-1], flush=True)
    rows = []
    for label, runs_of_it in measured.items():
        seconds = float(np.median([run.seconds for run in runs_of_it]))
        rows.append(
            {
                "files": name,
                "command": label,
                "seconds": seconds,
                "images/s": len(files) / seconds,
                "megapixels/s": megapixels / seconds,
                "peak memory, MB": round(max(run.memory for run in runs_of_it) / 1e6),
            }
        )
    return rows


def write_images(folder: Path) -> dict[str, Path]:
    """Write the sets of files; return their folders by name."""
    sets = {name: folder / f"set{number}" for number, name in enumerate((ONE, TEST, MANY, LARGE))}
    manifest, tiles = processed.read_manifest(), []
    with archives.open_archive(layout.TEST_ARCHIVE) as zipped:
        for image_id in manifest[manifest.split == "test"].image_id:
            rgb = to_rgb(archives.read_image(zipped, archives.image_member(image_id)))
            write(sets[TEST] / f"{image_id}.png", rgb)
            if rgb.shape[:2] == (256, 256):
                tiles.append(rgb)
    for number in range(1000):
        write(sets[MANY] / f"{number:04}.png", tiles[number % len(tiles)])
    write(sets[ONE] / "one.png", mosaic(tiles, 512))
    write(sets[LARGE] / "large.png", mosaic(tiles, 8192))
    return sets


def mosaic(tiles: list[np.ndarray], side: int) -> np.ndarray:
    """Return tiles of 256x256 side by side, uint8 (side, side, 3)."""
    count = side // 256
    rows = [[tiles[(row * count + column) % len(tiles)] for column in range(count)] for row in range(count)]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def network_alone(threads: int) -> dict[str, float]:
    """Return the milliseconds that the pretrained network takes for images of each size."""
    network = models.load(threads=threads).network
    row: dict[str, float] = {"threads": threads}
    for side in SIDES:
        image = np.random.default_rng(0).uniform(0, 255, (1, side, side, network.channels)).astype(np.float32)
        network(image)
        seconds = []
        for _ in range(7):
            started = time.perf_counter()
            network(image)
            seconds.append(time.perf_counter() - started)
        row[f"{side}x{side}"] = 1000 * min(seconds)
    return row


if __name__ == "__main__":
    main()
