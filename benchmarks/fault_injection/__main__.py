"""Provoke faults and see what is lost.

    python -m benchmarks.fault_injection [--short] [NAME ...]

Runs the pipeline on a small synthetic data set in temporary copies of the project, once undisturbed, then once for each
fault. After the cause is gone `dvc repro` must succeed, and every output must have the hash of the undisturbed run.
Model files of others must end in one clear line, and change nothing. Fails if anything was lost.
All faults take an hour on 2 cores and write benchmarks/results/fault_injection.md; `--short` is what CI runs.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from benchmarks.fault_injection import hostile, killed, resources, tracking  # noqa: F401  (rows)
from benchmarks.fault_injection.project import FAULTS, SMALL, Failed, Project
from benchmarks.measure import save_table
from pipeline import layout
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
    "models of others: other files, terabytes, unknown operators",
)


def main() -> None:
    """Provoke the faults and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {'; '.join(FAULTS)} (default: all)")
    parser.add_argument("--short", action="store_true", help=f"only: {'; '.join(SHORT)}")
    arguments = parser.parse_args()
    for name in set(arguments.names) - set(FAULTS):
        parser.error(f"no fault {name!r}; there are: {'; '.join(FAULTS)}")
    # Rows are seen as they come, also in a log file of a run that is stopped.
    sys.stdout.reconfigure(line_buffering=True)
    # A command that a shell starts in the background ignores Ctrl-C, and so would all its child processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = arguments.names or (SHORT if arguments.short else tuple(FAULTS))
    rows = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        starts = {name: Project(Path(folder, name)) for name in ("fresh", "prepared", "undisturbed")}
        copy_project(Path.cwd(), starts["fresh"].folder)
        starts["fresh"].set(SMALL)
        if any(FAULTS[name].outputs or FAULTS[name].start != "fresh" for name in chosen):
            starts["fresh"].copy("prepared").repro("preprocess")
            starts["prepared"].copy("undisturbed").repro()
        for number, name in enumerate(tqdm(chosen, "faults", disable=None)):
            what, result = provoked(name, starts, f"fault{number}")
            rows.append((name, " ".join(what.replace("|", "/").split()), result or "no"))
            tqdm.write("{}: {} Anything lost: {}".format(*rows[-1]))
    if len(chosen) == len(FAULTS):
        save_table(RESULT, describe("dvc", "mlflow"), pd.DataFrame(rows, columns=COLUMNS).set_index(COLUMNS[0]))
    if lost := [name for name, _, result in rows if result != "no"]:
        raise SystemExit(f"error: {len(lost)} of {len(chosen)} faults did harm")
    print(f"{len(chosen)} faults, nothing lost")


def provoked(name: str, starts: dict[str, Project], folder: str) -> tuple[str, str]:
    """Provoke a fault in a folder of its own; return what happened, and what was lost (empty: nothing)."""
    fault = FAULTS[name]
    project = starts[fault.start].copy(folder)
    try:
        what = fault.provoke(project)
        return what, missing(project, starts["undisturbed"]) if fault.outputs else ""
    except Failed as error:
        return str(error), "failed"
    except Exception as error:  # of the row itself: the others are tried all the same
        return f"{type(error).__name__}: {error}", "failed"
    finally:
        shutil.rmtree(project.folder, ignore_errors=True)


def missing(project: Project, undisturbed: Project) -> str:
    """Return which outputs differ from those of the undisturbed run, and what is left over; empty if all is well."""
    now, wanted = (hashes((one.folder / layout.DVC_LOCK).read_text()) for one in (project, undisturbed))
    lost = [f"other bytes: {output}" for (stage, output), value in wanted.items() if now.get((stage, output)) != value]
    left = [path.name for pattern in (".partial-*", ".resume/*") for path in project.folder.rglob(pattern)]
    return ", ".join(lost + [f"left over: {name}" for name in left])


if __name__ == "__main__":
    main()
