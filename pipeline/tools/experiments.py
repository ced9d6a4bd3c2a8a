"""Print what was tried on top of this commit, best first: `make experiments`.

`dvc exp show` has a column for each parameter that any experiment changed. Here each experiment lists only its own.
"""

import pandas as pd
from dvc.api import exp_show
from dvc.exceptions import DvcException

from nuclei_unet.errors import InputError
from pipeline import layout, params, stage
from pipeline.git import check

BEST = "validation.dsb_score"  # as dvc names it, from reports/metrics.json
SHOWN = 2  # parameters of an experiment


def main() -> None:
    """Print the table."""
    check()
    try:
        found = exp_show()
    except DvcException as error:
        raise InputError(f"`dvc exp show` failed: {error}") from None
    names = list(params.flatten(params.load()))
    print(table(found, names).to_markdown(index=False, floatfmt=".3f", tablefmt="simple"))


def table(found: list[dict], names: list[str]) -> pd.DataFrame:
    """Return one row per commit or experiment, as `dvc.api.exp_show` gives them, by validation dsb_score.

    `names` are the names of the parameters, in the order in which they are shown.
    """
    shown = tuple(f"{split}." for split in layout.SCORED_SPLITS)
    # The workspace has no name yet.
    commit, *experiments = (row for row in found if row["rev"] != "workspace")
    experiments = [row for row in experiments if row.get(BEST) is not None]
    rows = [
        {"experiment": row["Experiment"] or row["rev"]}
        | {name: value for name, value in row.items() if name.startswith(shown)}
        | {"what it changes": changes(commit, row, names)}
        for row in (commit, *sorted(experiments, key=lambda row: -row[BEST]))
    ]
    return pd.DataFrame(rows)


def changes(commit: dict, row: dict, names: list[str]) -> str:
    """Return the parameters that differ between an experiment and the commit, the first ones by name."""
    changed = {name: row[name] for name in names if name in row and row[name] != commit.get(name)}
    # DVC gives 3 as 3.0.
    shown = {name: f"{value:g}" if isinstance(value, float) else value for name, value in changed.items()}
    return ", ".join(params.first_of(shown, SHOWN))


if __name__ == "__main__":
    stage.run(main)
