"""How much of a score is luck? The default recipe trained with other seeds.

    python -m benchmarks.seeds [--seeds 1 2]

Runs `dvc exp run --temp -S train.seed=N` for each seed that has no experiment seed-N yet (they stay: `dvc exp show`),
and puts their scores beside those of the workspace. Needs `dvc repro` and its results committed. Writes
benchmarks/results/seeds.md; half an hour a seed on 2 cores.
"""

import argparse
import json
import subprocess
from pathlib import Path

import pandas as pd

from benchmarks.measure import save_table
from pipeline import layout, params
from pipeline.git import git
from pipeline.machine import describe

RESULT = Path("benchmarks/results/seeds.md")


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    rows = {params.load().train.seed: layout.MAIN_SCORES.read_text()}
    for seed in parser.parse_args().seeds:
        name = f"seed-{seed}"
        if not experiment(name):
            command = ["dvc", "exp", "run", "--temp", "--name", name, "-S", f"train.seed={seed}", "evaluate"]
            subprocess.run(command, check=True)
        rows[seed] = git("show", f"{experiment(name)}:{layout.MAIN_SCORES}")
    scores = {seed: pd.json_normalize(json.loads(text), sep=" ").iloc[0] for seed, text in rows.items()}
    table = pd.DataFrame(scores).T.rename_axis("train.seed")
    table.loc["mean"] = table.mean()
    table.loc["largest - smallest"] = table.drop("mean").max() - table.drop("mean").min()
    save_table(RESULT, describe(), table, digits=".3f")


def experiment(name: str) -> str:
    """Return the commit of the experiment on top of the current commit, or nothing; DVC keeps them as git refs."""
    head = git("rev-parse", "HEAD").strip()
    return git("for-each-ref", "--format=%(objectname)", f"refs/exps/{head[:2]}/{head[2:]}/{name}").strip()


if __name__ == "__main__":
    main()
