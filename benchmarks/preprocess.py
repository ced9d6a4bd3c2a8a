"""How much faster is preprocessing than the loop of the tutorial that this project started from?

    python -m benchmarks.preprocess [--images 100]

Reads data/raw/stage1_train.zip (run `dvc repro download` first). Times, one after the other on this machine,
the tutorial's loop (scikit-image: read every image and every mask from disk, resize each to 128x128) and
`pipeline.preprocess` (native size, checks, source frames, split, files written). The tutorial gets its files
extracted before its clock starts. Writes benchmarks/results/preprocess.md.
"""

import argparse
import platform
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from skimage.io import imread
from skimage.transform import resize
from tqdm import tqdm

from nuclei_unet.batch.pool import open_pool
from pipeline import layout, params, preprocess
from pipeline.dataset import archives
from pipeline.machine import cpus

RESULT = Path("benchmarks/results/preprocess.md")
SIZE = (128, 128)


def main() -> None:
    """Write the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, help="only the first ones (default: all)")
    source = layout.TRAIN_ARCHIVE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = folder / "images.zip"
        ids = subset(source, archive, parser.parse_args().images)
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder / "extracted")
        seconds = {"tutorial": timed(tutorial, folder / "extracted", ids)}
        (folder / "processed").mkdir()
        seconds["pipeline"] = timed(ours, archive, folder / "processed")
    lines = [
        f"{len(ids)} images of stage1_train, {cpus()} CPU cores, Python {platform.python_version()}.",
        "",
        "| preprocessing | seconds |",
        "|---|---|",
        *(f"| {name} | {value:.1f} |" for name, value in seconds.items()),
        f"| ratio | {seconds['tutorial'] / seconds['pipeline']:.1f} |",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print(RESULT.read_text())


def subset(source: Path, target: Path, count: int | None) -> list[str]:
    """Copy the first `count` images and their masks to another zip; return their ids."""
    with archives.open_archive(source) as full, zipfile.ZipFile(target, "w") as part:
        ids = archives.image_ids(full)[:count]
        wanted = set(ids)
        for name in tqdm(full.namelist(), "copying"):
            if name.split("/")[0] in wanted:
                part.writestr(name, full.read(name))
    return ids


def tutorial(folder: Path, ids: list[str], threshold: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Read and resize as the tutorial does: images to uint8 (N, 128, 128, 3), masks to bool (N, 128, 128, 1).

    Resizing smooths masks to 0 ... 255. As published, everything above 0 counts as nucleus; threshold 127 fixes that.
    """
    images = np.zeros((len(ids), *SIZE, 3), np.uint8)
    labels = np.zeros((len(ids), *SIZE, 1), bool)
    for n, image_id in enumerate(tqdm(ids, "tutorial")):
        image = imread(folder / image_id / "images" / f"{image_id}.png")[:, :, :3]
        images[n] = resize(image, SIZE, mode="constant", preserve_range=True)
        mask = np.zeros((*SIZE, 1), bool)
        for path in (folder / image_id / "masks").iterdir():
            one = resize(imread(path), SIZE, mode="constant", preserve_range=True)
            mask = np.maximum(mask, one[..., None] > threshold)
        labels[n] = mask
    return images, labels


def ours(archive: Path, folder: Path) -> None:
    """Preprocess as the stage does."""
    settings = params.load().preprocess
    with open_pool(threads=cpus()) as pool:
        images, _ = preprocess.process(archive, folder, settings, pool)
    preprocess.make_manifest(images, [replace(images[0], image_id="a test image")], settings)


def timed(function, *arguments) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
