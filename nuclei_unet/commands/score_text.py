"""What `nuclei-unet score` prints."""

import textwrap
from collections.abc import Iterable, Mapping

import numpy as np

from nuclei_unet.commands.text import aligned
from nuclei_unet.evaluation import scores

WORST_BY = "dsb_score"  # a column
N_WORST = 5
# What became of true and of predicted nuclei; columns, too.
TRUE = ("correct", "missed", "split", "merged")
PREDICTED = ("correct", "false", "predicted_split", "predicted_merged")


def text(values: Mapping, columns: Mapping[str, np.ndarray], width: int) -> str:
    """Return all scores and the worst images as people read them, in lines of about `width` characters.

    `values` and `columns` are what `score` writes as scores.json and per_image.csv.
    """
    became = values["outcomes"]
    return "\n".join(
        [
            f"{values['n_images']:,} images, {values['n_nuclei']:,} nuclei, {values['n_predicted_nuclei']:,} predicted",
            "",
            *_score_lines(values, width),
            "",
            f"of the nuclei:       {_listed(became, TRUE)}",
            f"of the predictions:  {_listed(became, PREDICTED)}",
            "",
            *_worst_lines(columns),
        ]
    )


def _listed(became: Mapping[str, int], names: Iterable[str]) -> str:
    return ", ".join(f"{became[name]:,} {name.removeprefix('predicted_')}" for name in names)


def _score_lines(values: Mapping, width: int) -> list[str]:
    """Return a line for each score: name, value, 95% interval if it has one, and its meaning, wrapped."""
    rows = []
    for score in scores.listed():
        if score.over not in ("low", "high"):  # they stand beside their score
            group = values[score.group]
            low, high = (group.get(f"{score.key}_{end}") for end in ("low", "high"))
            interval = "" if low is None else f"{low:.3f}-{high:.3f}"
            rows.append((score.name, f"{group[score.key]:.3f}", interval, score.meaning))
    heads = aligned([("score", "value", "95% interval"), *(row[:3] for row in rows)])
    room = max(width - len(heads[0]) - 2, 40)
    lines = [heads[0]]
    for head, row in zip(heads[1:], rows, strict=True):
        first, *others = textwrap.wrap(row[3], room)
        lines += [f"{head}  {first}", *(" " * (len(head) + 2) + other for other in others)]
    return lines


def _worst_lines(columns: Mapping[str, np.ndarray]) -> list[str]:
    order = np.argsort(columns[WORST_BY], kind="stable")[:N_WORST]
    shown = (WORST_BY, "nuclei", "predicted_nuclei", *TRUE, "false")
    rows = [
        (columns["image"][i], *(f"{columns[c][i]:.3f}" if c == WORST_BY else str(columns[c][i]) for c in shown))
        for i in order
    ]
    return aligned([("worst images", *(name.replace("_nuclei", "") for name in shown)), *rows])
