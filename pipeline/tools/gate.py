"""Fail if what is committed does not match the code, or is worse than another revision: `make gate REV=main`.

dvc.lock must match the code and params.yaml. The validation score in reports/metrics.json must not be lower than that
of REV by more than `verify.gate_tolerance`.
"""

import argparse
import json
import subprocess
import sys

from nuclei_unet.errors import InputError
from pipeline import layout, params, process, stage
from pipeline.report.results import read_json
from pipeline.report.scores import DECISIVE
from pipeline.tools.project import commit_of, committed


def main() -> None:
    """Check both, and say so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", nargs="?", default="main", help="branch or commit (default: main)")
    revision = parser.parse_args().revision
    command = [sys.executable, "-m", "dvc", "repro", "--allow-missing", "--dry"]
    done = subprocess.run(command, env=process.environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode or "Running stage" in done.stdout:
        print(done.stdout)
        raise InputError(f"{layout.DVC_LOCK} does not match the code and {layout.PARAMS}; `dvc repro`, then commit")
    print(f"{layout.DVC_LOCK} matches the code and {layout.PARAMS}")
    print(compared(score(read_json(layout.MAIN_SCORES, "evaluate")), revision, params.load().verify.gate_tolerance))


def compared(here: float, revision: str, tolerance: float) -> str:
    """Return how a score compares with a revision's. Raises InputError if it is lower by more than `tolerance`."""
    before = score(json.loads(committed(commit_of(revision), layout.MAIN_SCORES)))
    change = f"{DECISIVE.replace('/instance/', ' ')}: {before:.4f} in {revision}, {here:.4f} here"
    if here < before - tolerance:
        raise InputError(f"{change}; that is lower by more than verify.gate_tolerance, {tolerance}")
    return change


def score(metrics: dict) -> float:
    """Return the score that decides, of a metrics.json."""
    split, _, key = DECISIVE.split("/")
    return metrics[split][key]


if __name__ == "__main__":
    stage.run(main)
