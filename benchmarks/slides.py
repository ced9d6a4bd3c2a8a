"""How long does `nuclei-unet predict SLIDE.zarr OUT.zarr` take, and how much memory, by the size of the slide?

    python -m benchmarks.slides [--sides 4096 8192] [--jobs 1 2] [--scheduler tcp://host:8786]

Slides are drawn: a tile of 1,024 x 1,024 pixels with nuclei is repeated in a square in the middle that has a quarter of
the slide's area; the other chunks are not stored, as scanners leave out what is glass. Each row is a whole command,
from the shell to the last file. Megapixels a second are of the whole slide, and of the quarter with nuclei alone.
Memory is the highest of each process, looked at ten times a second: the process that was started, and the largest
worker. With one job they are the same one. Workers at a scheduler are not seen.

Writes benchmarks/results/slides.md; slides-large.md is of --engine tensorflow --jobs 2 --sides 16384 32768 65536. The
largest took 20 minutes on two cores with TensorFlow and bfloat16; ONNX Runtime takes longer. Linux and macOS.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from benchmarks import memory
from nuclei_unet.prediction import models
from pipeline.dataset import synthetic
from pipeline.machine import describe

RESULT = Path("benchmarks/results/slides.md")
PREDICT = (sys.executable, "-m", "nuclei_unet", "predict", "--model", str(models.PRETRAINED))
SIDES = (4096, 8192, 16_384, 32_768, 65_536)
TILE = 1024


def main() -> None:
    """Measure all sizes; write the table as Markdown after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", type=int, default=SIDES, help="multiples of 4,096")
    parser.add_argument("--jobs", nargs="+", type=int, default=(1, 2), help="each size with each number of processes")
    parser.add_argument("--scheduler", help="of a Dask cluster; instead of processes here")
    parser.add_argument("--engine", choices=("onnx", "tensorflow"), default="onnx")
    parser.add_argument("--folder", help="for the slides, deleted at the end; default: where temporary files are")
    parser.add_argument("--out", type=Path, default=RESULT, help=f"default: {RESULT}")
    arguments = parser.parse_args()
    where = (
        [["--scheduler", arguments.scheduler]] if arguments.scheduler else [["--jobs", str(n)] for n in arguments.jobs]
    )
    rows = []
    for side in arguments.sides:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
            slide = draw(Path(temporary, "slide.zarr"), side)
            for number, options in enumerate(where):
                out = Path(temporary, f"{number}.zarr")
                command = [*PREDICT, "--views", "fast", "--engine", arguments.engine, *options, str(slide), str(out)]
                seconds, own, workers = memory.watch(command, Path(temporary, "log"))
                rows.append(
                    {
                        "slide": f"{side:,} x {side:,}",
                        "where": " ".join(options).removeprefix("--"),
                        "seconds": seconds,
                        "megapixels/s": side**2 / 1e6 / seconds,
                        "of nuclei": side**2 / 4e6 / seconds,
                        "peak memory, MB": own / 1e6,
                        "largest worker, MB": (workers or own) / 1e6,
                        "nuclei": f"{json.loads((out / 'run.json').read_text())['nuclei']:,}",
                    }
                )
                print(rows[-1], flush=True)
                table = pd.DataFrame(rows).to_markdown(
                    index=False, floatfmt=("", "", ".0f", ".2f", ".2f", ".0f", ".0f", "")
                )
                text = f"{describe('onnxruntime')} Engine: {arguments.engine}, views: fast.\n\n{table}\n"
                arguments.out.write_text(text)
    print(text)


def draw(path: Path, side: int) -> Path:
    """Write a slide, uint8, in chunks that are stored in the middle only."""
    fields = [image[..., 0] for _, image, _ in synthetic.held_out_images(40, 5) if image.shape[:2] == (256, 256)][:16]
    tile = np.block([fields[row : row + 4] for row in range(0, 16, 4)])
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    array = group.create_array("0", shape=(side, side), dtype=np.uint8, chunks=(TILE, TILE), fill_value=0)
    for row in range(side // 4, 3 * side // 4, TILE):
        for column in range(side // 4, 3 * side // 4, TILE):
            array[row : row + TILE, column : column + TILE] = tile
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0.5, 0.5]}]}],
        }
    ]
    return path


if __name__ == "__main__":
    main()
