"""Run the whole pipeline on synthetic images, in a folder of its own.

    python -m pipeline.tools.demo

Copies the project to demo/ (git-ignored), sets the small parameters below and runs `dvc repro` there, offline. The
project's own params.yaml, dvc.lock and reports/ stay as they are. The run goes to the project's MLflow store.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from nuclei_unet.errors import InputError
from pipeline import layout, params, process
from pipeline.report.scores import text_table
from pipeline.stage import run
from pipeline.tools.project import copy_project
from pipeline.tracking import names, store

EXPERIMENT = "nuclei-unet-demo"
OVERRIDES = {
    "download.source": "synthetic",
    "download.synthetic.train": 64,
    "preprocess.validation_fraction": 0.3,
    "train.crop_size": 128,
    "train.epochs": 10,
    "train.steps_per_epoch": 40,
    "train.batch_size": 8,
    # The small network: the committed one would take most of the time.
    "train.model.encoder": "none",
    "train.model.filters": [12, 24, 48],
    # So few steps have to be large ones, and on crops that are like the images.
    "train.learning_rate": 0.006,
    **dict.fromkeys(("train.augment.cytoplasm", "train.augment.transfer", "train.augment.mix"), 0),
    "visualize.examples": 2,
}


def main() -> None:
    """Run the demo and say where its results are."""
    started = time.monotonic()
    folder = layout.DEMO
    copy_project(Path.cwd(), folder)
    params_file = folder / layout.PARAMS
    params_file.write_text(params.override(params_file.read_text(), OVERRIDES))
    environment = process.environment(
        MLFLOW_TRACKING_URI=store.store(folder), MLFLOW_EXPERIMENT_NAME=EXPERIMENT, **{names.RUN_NAME: "demo"}
    )
    if subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=folder, env=environment).returncode:
        raise InputError("`dvc repro` failed; see its message above")
    print(f"\nThe pipeline ran in {time.monotonic() - started:.0f} s on SYNTHETIC images drawn from a seed. Scores:\n")
    print(text_table(json.loads((folder / layout.SCORES_FILE).read_text())))
    print(
        f"\nReport    {folder / layout.REPORT}\nPictures  {folder / layout.FIGURES}/\nModel     {folder / layout.MODEL}"
    )
    print(f"MLflow    run `make ui` and open the page of {EXPERIMENT} that it prints")


if __name__ == "__main__":
    run(main)
