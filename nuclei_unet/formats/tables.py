"""Tables as CSV. A table is columns by name, all of the same length."""

import csv
import io
from collections.abc import Mapping

import numpy as np

TYPES = {"image": "string", "label": "int64", "typical_diameter_from": "string"}  # of columns that are no floats
# Spreadsheets run a cell that starts with one of these as a formula, quoted or not (OWASP, "CSV Injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n")


def csv_bytes(table: Mapping[str, np.ndarray]) -> bytes:
    """Return a table as CSV (RFC 4180, but lines end with \\n): UTF-8, one line of names, then one line a row.

    Numbers have nine significant digits: enough for any float32, for a hundred-thousandth of a pixel and for sums of
    intensity, and fewer than the last few that differ between processors. NaN and None are empty cells. A text that a
    spreadsheet would run as a formula, such as a file name that starts with = + - @, gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_text, table))
    writer.writerows(zip(*map(_cells, table.values()), strict=True))
    # File names need not be Unicode.
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cells(column: np.ndarray) -> list[str]:
    values = np.asarray(column)
    if values.dtype.kind == "f":
        return ["" if value != value else f"{value:.9g}" for value in values.tolist()]
    return [
        "" if value is None else _text(value) if isinstance(value, str) else str(value) for value in values.tolist()
    ]


def _text(text: str) -> str:
    text = text.replace("\r", "\\r")  # which Python's writer does not quote before 3.13
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
