"""The whole pipeline on the embedded synthetic data set, in a folder of its own.

    python -m pipeline.tools.demo

Copies the project to demo/ (git-ignored), sets the small parameters below and runs `dvc repro` there, offline. The
project's own params.yaml, dvc.lock and reports/ stay as they are. The run goes to the project's MLflow store.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from nuclei_unet.errors import InputError
from pipeline import params
from pipeline.report.scores import text_table
from pipeline.stage import run

FOLDER = Path("demo")
OVERRIDES = {
    "download.source": "synthetic",
    "download.synthetic.train": 64,
    "preprocess.validation_fraction": 0.3,
    "train.crop_size": 192,
    "train.epochs": 12,
    "train.steps_per_epoch": 100,
    "train.batch_size": 8,
    "train.model.filters": [16, 32, 64, 96],
    "evaluate.scales": [1],
    "visualize.examples": 2,
}


def main() -> None:
    """Run the demo and say where its results lie."""
    started = time.monotonic()
    copy_project(Path.cwd(), FOLDER)
    params_file = FOLDER / "params.yaml"
    params_file.write_text(params.override(params_file.read_text(), OVERRIDES))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}",
        "MLFLOW_EXPERIMENT_NAME": "nuclei-unet-demo",
    }
    if subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=FOLDER, env=environment).returncode:
        raise InputError("`dvc repro` failed; its message stands above")
    print(f"\nThe pipeline ran in {time.monotonic() - started:.0f} s on SYNTHETIC images drawn from a seed. Scores:\n")
    print(text_table(json.loads((FOLDER / "reports/scores.json").read_text())))
    print(f"\nReport    {FOLDER}/reports/report.html")
    print(f"Pictures  {FOLDER}/reports/figures/")
    print("MLflow    make ui, then http://127.0.0.1:5000, experiment nuclei-unet-demo")


def copy_project(source: Path, target: Path) -> None:
    """Copy the project's files, those git tracks and new ones it does not ignore, to an empty `target`.

    The copy is a DVC project without git, so that nothing it does reaches the repository around it.
    """
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=source,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        raise InputError("not a git checkout; clone the repository with git, then run this again")
    for name in filter(None, listed.stdout.split("\0")):
        # A file that was deleted but not yet committed is still listed.
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    # Copied results belong to other parameters.
    (target / "dvc.lock").unlink(missing_ok=True)
    (target / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")


if __name__ == "__main__":
    run(main)
