"""How do time and memory of each stage grow with the number of images?

    python -m benchmarks.scaling [--smallest 125] [--largest 1000]

Draws synthetic data sets of 125, 250, 500 ... images, a fifth of them test images, and runs every stage on each in a
copy of the project, with a single epoch of 20 steps and one view at prediction. Writes benchmarks/results/scaling.csv
and scaling.png: seconds and peak memory of each stage. (`benchmarks.prediction` does the same for the size of an
image.)
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from pipeline import layout, params, process
from pipeline.machine import peak_bytes
from pipeline.tools.project import copy_project

RESULTS = Path("benchmarks/results")
STAGES = ("download", "preprocess", "train", "evaluate", "visualize")
OVERRIDES = {
    "download.source": "synthetic",
    "train.epochs": 1,
    "train.steps_per_epoch": 20,
}
# A light process starts each stage: Linux counts a parent's memory as its child's, and this one has all of TensorFlow.
LIGHT = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def main() -> None:
    """Write the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smallest", type=int, default=125)
    parser.add_argument("--largest", type=int, default=1000)
    arguments = parser.parse_args()
    rows, count = [], arguments.smallest
    while count <= arguments.largest:
        for stage, seconds, memory in measure(count):
            rows.append({"images": count, "stage": stage, "seconds": seconds, "peak memory, MB": memory})
            print(rows[-1], flush=True)
        count *= 2
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    table.to_csv(RESULTS / "scaling.csv", index=False, float_format="%.1f", lineterminator="\n")
    plot(table).savefig(RESULTS / "scaling.png", dpi=110, metadata={"Software": None})


def measure(count: int) -> list[tuple[str, float, float]]:
    """Run all stages on `count` images; return (stage, seconds, peak memory in MB) of each."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "project")
        copy_project(Path.cwd(), folder)
        path = folder / "params.yaml"
        test = count // 5
        drawn = {"download.synthetic.train": count - test, "download.synthetic.test": test}
        path.write_text(params.override(path.read_text(), OVERRIDES | drawn))
        environment = process.environment(MLFLOW_TRACKING_URI=f"sqlite:///{folder / layout.STORE}")
        for stage in STAGES:
            started = time.perf_counter()
            with (folder / f"{stage}.log").open("w") as log:
                measured = [sys.executable, "-m", f"pipeline.{stage}"]
                command = [sys.executable, "-c", LIGHT, str(folder / "memory"), *measured]
                failed = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log).returncode
            if failed:
                raise SystemExit(f"error: {stage} failed:\n{(folder / f'{stage}.log').read_text()[-2000:]}")
            memory = peak_bytes(SimpleNamespace(ru_maxrss=int((folder / "memory").read_text())))
            found.append((stage, time.perf_counter() - started, memory / 1e6))
    return found


def plot(table: pd.DataFrame) -> Figure:
    """Draw seconds and memory over the number of images, both axes logarithmic."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, column in zip(figure.subplots(1, 2), ("seconds", "peak memory, MB"), strict=True):
        for stage in STAGES:
            rows = table[table.stage == stage]
            axes.loglog(rows.images, rows[column], marker="o", label=stage)
        axes.set(xlabel="images", ylabel=column)
        axes.set_xticks(sorted(set(table.images)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_yticks([1, 3, 10, 30, 100] if column == "seconds" else [100, 300, 1000, 3000])
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


if __name__ == "__main__":
    main()
