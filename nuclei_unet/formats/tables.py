"""Tables as files: CSV and Parquet. A table is columns by name, all of the same length."""

import csv
import io
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file, fresh_folder

TYPES = {"image": "string", "label": "int64"}  # of columns that are no floats
PART = 1_000_000  # rows of a Parquet file
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


def write_parquet(table: Path, path: Path, rows: int = 0) -> None:
    """Write a CSV table of measurements as Parquet, a piece at a time: `image` as text, the others as numbers.

    `rows` is how many rows it has, about. Up to a million, `path` is a file; beyond, a folder of files with a million
    rows each, which pandas, Dask, DuckDB and others read like one. Empty cells become null. Raises InputError if
    pyarrow is not installed.
    """
    if not find_spec("pyarrow"):
        raise InputError("Parquet needs pyarrow: pip install 'nuclei-unet[parquet]'")
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    with table.open(encoding="utf-8", newline="") as file:
        names = next(csv.reader(file))
    types = {name: TYPES.get(name, "float64") for name in names}
    with arrow_csv.open_csv(table, convert_options=arrow_csv.ConvertOptions(column_types=types)) as parts:
        if rows <= PART:
            if path.is_dir():
                shutil.rmtree(path)
            with fresh_file(path) as partial, parquet.ParquetWriter(partial, parts.schema) as writer:
                for part in parts:
                    writer.write_batch(part)
            return
        if path.is_file():
            path.unlink()
        with fresh_folder(path) as folder:
            written, number, writer = 0, 0, None
            for part in parts:
                if writer is None:
                    writer = parquet.ParquetWriter(folder / f"part-{number:05}.parquet", parts.schema)
                writer.write_batch(part)
                written += len(part)
                if written >= PART:
                    writer.close()
                    written, number, writer = 0, number + 1, None
            if writer is not None:
                writer.close()


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
