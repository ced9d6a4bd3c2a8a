"""Large tables as Parquet, written part by part. A table is columns by name, all of the same length."""

import csv
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file, fresh_folder
from nuclei_unet.formats.tables import TYPES

PART = 1_000_000  # rows of a file


def check_installed(what: str) -> None:
    """Raise InputError that starts with `what` if pyarrow is not installed."""
    if not find_spec("pyarrow"):
        raise InputError(f"{what} needs pyarrow: pip install 'nuclei-unet[parquet]'")


def write_parts(parts: Iterable[Mapping[str, np.ndarray]], path: Path) -> None:
    """Write tables of the same columns, one at least, one after the other to one file. One is in memory at a time.

    `image` is text, `label` a whole number, the others are floats; NaN becomes null.
    """
    import pyarrow
    from pyarrow import parquet

    with ExitStack() as stack:
        partial = stack.enter_context(fresh_file(path))
        writer = None
        for part in parts:
            types = {name: pyarrow.type_for_alias(TYPES.get(name, "float64")) for name in part}
            arrays = {name: pyarrow.array(part[name], types[name], from_pandas=True) for name in part}
            table = pyarrow.table(arrays)
            writer = writer or stack.enter_context(parquet.ParquetWriter(partial, table.schema))
            writer.write_table(table)


def write_csv(table: Path, path: Path, rows: int = 0) -> None:
    """Write a CSV table of measurements as Parquet, a piece at a time: `image` as text, the others as numbers.

    `rows` is how many rows it has, about. Up to a million, `path` is a file; beyond, a folder of files with a million
    rows each, which pandas, Dask, DuckDB and others read like one. Empty cells become null. Raises InputError if
    pyarrow is not installed.
    """
    check_installed("Parquet")
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
