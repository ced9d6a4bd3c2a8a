"""The one error that a user can cause, and texts for people."""

from collections.abc import Sequence


class InputError(Exception):
    """Something the user gave is wrong. The message names the file or key and says what to do."""


def one_line(text: str) -> str:
    """Return a text with line breaks and control characters spelled out, as `\\n`: terminals obey them.

    File names and what a model says about itself may hold any character.
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def plural(count: int, thing: str) -> str:
    """Return a number of things in words."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return one line a row: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([f"{row[0]:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
