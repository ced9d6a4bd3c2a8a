"""Print what was tried on top of this commit, best first: `make experiments`.

`dvc exp show` has a column for each parameter that any experiment changed. Here each experiment lists only its own.
"""

import pandas as pd
from dvc.api import exp_show
from dvc.exceptions import DvcException

from nuclei_unet.errors import InputError
from pipeline import layout, params, stage
from pipeline.tools.project import commit_of

BEST = "validation.dsb_score"  # as dvc names it, from reports/metrics.json
SPLITS = tuple(f"{split}." for split in layout.SCORED_SPLITS)
SHOWN = 2  # parameters of an experiment


def main() -> None:
    """Print the table."""
    commit_of("HEAD")  # which says why, if git refuses this folder
    try:
        rows = exp_show()
    except DvcException as error:
        raise InputError(f"`dvc exp show` failed: {error}") from None
    shown = table(rows, list(params.flatten(params.load())))
    print(shown.to_markdown(index=False, floatfmt=".3f", tablefmt="simple"))


def table(rows: list[dict], names: list[str]) -> pd.DataFrame:
    """Return the commit and its experiments, rows of `dvc.api.exp_show`, the best first; `names` are the parameters."""
    commit, *experiments = (row for row in rows if row["rev"] != "workspace")
    finished = [row for row in experiments if row.get(BEST) is not None]
    lines = []
    for row in (commit, *sorted(finished, key=lambda row: -row[BEST])):
        changed = {name: row[name] for name in names if name in row and row[name] != commit.get(name)}
        # DVC gives 3 as 3.0.
        changed = {name: f"{value:g}" if isinstance(value, float) else value for name, value in changed.items()}
        scores = {name: value for name, value in row.items() if name.startswith(SPLITS)}
        said = ", ".join(params.first_of(changed, SHOWN))
        lines.append({"experiment": row["Experiment"] or row["rev"], **scores, "what it changes": said})
    return pd.DataFrame(lines)


if __name__ == "__main__":
    stage.run(main)
