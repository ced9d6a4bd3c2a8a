"""Print what was tried on top of this commit, best first: `make experiments`.

`dvc exp show` has a column for each parameter that any experiment changed. Here each experiment names its own.
"""

import pandas as pd
from dvc.api import exp_show
from dvc.exceptions import DvcException

from pipeline import params, stage
from pipeline.evaluate import SPLITS
from pipeline.stage import InputError

SCORES = tuple(f"{split}.{score}" for split in SPLITS for score in ("dsb_score", "ap50", "iou"))
SHOWN = 2  # parameters of an experiment


def main() -> None:
    """Print the table."""
    try:
        found = exp_show()
    except DvcException as error:
        raise InputError(f"`dvc exp show` failed: {error}") from None
    print(table(found).to_markdown(index=False, floatfmt=".3f", tablefmt="simple"))


def table(found: list[dict]) -> pd.DataFrame:
    """Return one row a commit or experiment, as `dvc.api.exp_show` gives them, by validation dsb_score."""
    # What lies in the folder has no name yet.
    commit, *experiments = (row for row in found if row["rev"] != "workspace")
    experiments = [row for row in experiments if row.get(SCORES[0]) is not None]
    rows = [
        {"experiment": row["Experiment"] or row["rev"]}
        | {name: row.get(name) for name in SCORES}
        | {"what it changes": changes(commit, row)}
        for row in (commit, *sorted(experiments, key=lambda row: -row[SCORES[0]]))
    ]
    return pd.DataFrame(rows)


def changes(commit: dict, row: dict) -> str:
    """Return the parameters of an experiment that the commit has otherwise, the first ones by name."""
    names = params.flatten(params.load())
    values = {name: row[name] for name in names if name in row and row[name] != commit.get(name)}
    changed = [f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()]
    more = [f"and {len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
    return ", ".join([*changed[:SHOWN], *more])


if __name__ == "__main__":
    stage.run(main)
