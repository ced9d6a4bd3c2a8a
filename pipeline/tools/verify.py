"""Run the committed pipeline again from scratch, in a fresh clone, and compare every output bit by bit.

    make verify, or python -m pipeline.tools.verify [REVISION] [--output FILE]

Clones REVISION (default: HEAD) into a temporary folder with an empty DVC cache and an MLflow store of its own, runs
`dvc repro` there and compares its dvc.lock with the committed one. On one kind of machine all outputs are identical.
On another kind of CPU, sums are rounded in another order, so training makes another model, as with another seed. There
the scores count, and the exit code is 0 if none differs by more than `verify.score_tolerance`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

from nuclei_unet.errors import InputError
from pipeline import download, layout, machine, params, process, stage
from pipeline.git import git
from pipeline.report.scores import flat_metrics
from pipeline.tools.project import commit_of, committed


def main() -> None:
    """Run, compare and print the table; fails if scores differ by more than the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revision", nargs="?", default="HEAD", help="commit or branch (default: HEAD)")
    parser.add_argument("--output", type=Path, help="file to write the table to as well")
    arguments = parser.parse_args()
    tolerance = params.load().verify.score_tolerance
    with tempfile.TemporaryDirectory(prefix="verify-") as name:
        clone = Path(name, "clone")
        commit = commit_of(arguments.revision)
        old_hashes, old_scores = hashes(committed(commit, layout.DVC_LOCK)), committed(commit, layout.SCORES_FILE)
        git("clone", "--quiet", "--no-local", ".", str(clone))
        git("-C", str(clone), "checkout", "--quiet", commit)
        print(f"running the pipeline of {arguments.revision} in {clone}", flush=True)
        command = [sys.executable, "-m", "dvc", "repro", "--force", "--no-run-cache"]
        if subprocess.run(command, cwd=clone, env=environment()).returncode:
            raise InputError("`dvc repro` failed in the clone; see its message above")
        table = compare(old_hashes, hashes((clone / layout.DVC_LOCK).read_text()))
        differences = compare_scores(old_scores, (clone / layout.SCORES_FILE).read_text())
    same, largest = int((table["identical"] == "yes").sum()), differences["difference"].abs().max()
    summary = (
        f"{same} of {len(table)} outputs are identical; the largest difference of a score is {largest:.4f} "
        f"(verify.score_tolerance allows {tolerance})."
    )
    if largest:
        summary = f"{differences.to_markdown(index=False, floatfmt='.4f')}\n\n{summary}"
    text = f"{machine.describe('dvc')}\n\n{table.to_markdown(index=False)}\n\n{summary}\n"
    print(f"\n{text}")
    if arguments.output:
        arguments.output.write_text(text)
    if not largest <= tolerance:
        raise InputError(f"a score differs by more than verify.score_tolerance, {tolerance}")


def environment() -> dict[str, str]:
    """Return the variables for the run in the clone: this Python, its own MLflow store, files already downloaded."""
    own = {}
    if folder := download.archives_folder():
        own[download.ARCHIVES_VARIABLE] = str(folder.absolute())
    elif all((layout.DOWNLOADS / source.name).is_file() for source in download.SOURCES["bbbc038-fixed"]):
        own[download.ARCHIVES_VARIABLE] = str(layout.DOWNLOADS.absolute())
    return process.environment(without=("DVC_", "MLFLOW_"), **own)


def hashes(lock: str) -> dict[tuple[str, str], str]:
    """Return {(stage, output): hash} of the text of a dvc.lock."""
    stages = YAML(typ="safe").load(lock)["stages"]
    return {(name, out["path"]): out["md5"] for name, entry in stages.items() for out in entry["outs"]}


def compare(before: dict[tuple[str, str], str], after: dict[tuple[str, str], str]) -> pd.DataFrame:
    """Return one row per output: stage, output, both hashes (their first 8 digits), identical yes or no."""
    rows = []
    for key in before | after:
        old, new = before.get(key, "missing"), after.get(key, "missing")
        rows.append([*key, old[:8], new[:8], "yes" if old == new else "no"])
    return pd.DataFrame(rows, columns=["stage", "output", "committed", "now", "identical"])


def compare_scores(before: str, after: str) -> pd.DataFrame:
    """Return one row per score of two scores.json: both values, and the difference; infinite where one is missing."""
    sides = {name: flat_metrics(json.loads(text)) for name, text in (("committed", before), ("now", after))}
    table = pd.DataFrame(sides).rename_axis("score").reset_index()
    return table.assign(difference=(table["now"] - table["committed"]).fillna(float("inf")))


if __name__ == "__main__":
    stage.run(main)
