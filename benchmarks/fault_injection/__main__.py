"""Provoke faults and see what is lost.

    python -m benchmarks.fault_injection [--short] [NAME ...]

Runs the pipeline on a small synthetic data set in temporary copies of the project, once undisturbed, then once for each
fault. After the cause is gone `dvc repro` must succeed, and every output must have the hash of the undisturbed run.
Faults that are requests, files or names from outside must end in one clear line, and change nothing. Writes
the rows to benchmarks/results/fault_injection.md and fails if anything was lost. `--short`: what CI runs.
"""

import argparse
import shutil
import signal
import tempfile
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from benchmarks.fault_injection import (  # noqa: F401  (rows)
    disk,
    hostile,
    killed,
    parameters,
    places,
    requests,
    tracking,
)
from benchmarks.fault_injection.project import FAULTS, SMALL, Failed, Project
from pipeline.machine import describe
from pipeline.tools.project import copy_project
from pipeline.tools.verify import hashes

RESULT = Path("benchmarks/results/fault_injection.md")
COLUMNS = ("fault", "what happened", "anything lost")
SHORT = (
    "train: SIGKILL",
    "dvc killed, its stage lives on",
    "MLflow: nobody listens",
    "the loss explodes",
    "branches whose names are commands or options",
)


def main() -> None:
    """Provoke the faults and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of: {'; '.join(FAULTS)} (default: all)")
    parser.add_argument("--short", action="store_true", help=f"only: {'; '.join(SHORT)}")
    arguments = parser.parse_args()
    for name in set(arguments.names) - set(FAULTS):
        parser.error(f"no fault {name!r}; there are: {'; '.join(FAULTS)}")
    # A command that a shell starts in the background ignores Ctrl-C, and so would all its child processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rows = {} if arguments.short else written()
    chosen = arguments.names or (SHORT if arguments.short else tuple(FAULTS))
    lost = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        starts = {name: Project(Path(folder, name)) for name in ("fresh", "prepared", "undisturbed")}
        copy_project(Path.cwd(), starts["fresh"].folder)
        starts["fresh"].set(SMALL)
        starts["fresh"].copy("prepared").repro("preprocess")
        starts["prepared"].copy("undisturbed").repro()
        wanted = hashes(starts["undisturbed"].folder)
        for number, name in enumerate(tqdm(chosen, "faults", disable=None)):
            fault = FAULTS[name]
            project = starts[fault.start].copy(f"fault{number}")
            try:
                what = fault.provoke(project)
                result = missing(project, wanted) if fault.outputs else ""
            except Failed as error:
                what, result = str(error), "failed"
            except Exception as error:  # of the row itself: the others are tried all the same
                what, result = f"{type(error).__name__}: {error}", "failed"
            rows[name] = (name, what, result or "no")
            lost += bool(result)
            tqdm.write(f"{name}: {what} Anything lost: {result or 'no'}")
            shutil.rmtree(project.folder, ignore_errors=True)
            if not arguments.short:
                write([rows[name] for name in FAULTS if name in rows])
    if lost:
        raise SystemExit(f"error: {lost} of {len(chosen)} faults did harm")
    print(f"{len(chosen)} faults, nothing lost")


def missing(project: Project, wanted: dict) -> str:
    """Return which outputs differ from those of the undisturbed run, and what is left over; empty if all is well."""
    now = hashes(project.folder)
    lost = [output for (stage, output), value in wanted.items() if now.get((stage, output)) != value]
    left = [path.name for pattern in (".partial-*", ".resume/*") for path in project.folder.rglob(pattern)]
    return ", ".join([f"other bytes: {name}" for name in lost] + [f"left over: {name}" for name in left])


def written() -> dict[str, tuple[str, ...]]:
    """Return the rows of the committed table by name."""
    lines = RESULT.read_text().splitlines() if RESULT.exists() else []
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("| ")]
    return {row[0]: row for row in rows if row != COLUMNS}


def write(rows: list[tuple[str, ...]]) -> None:
    """Write the table."""
    table = pd.DataFrame([[" ".join(cell.replace("|", "/").split()) for cell in row] for row in rows], columns=COLUMNS)
    RESULT.parent.mkdir(exist_ok=True)
    machine = f"The latest rows were written on: {describe('dvc', 'mlflow')}"
    RESULT.write_text(f"{machine}\n\n{table.to_markdown(index=False)}\n")


if __name__ == "__main__":
    main()
