"""Large tables as Parquet, written part by part. A table is columns by name, all of the same length."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats.tables import TYPES


def check_installed(what: str) -> None:
    """Raise InputError, which starts with `what`, if pyarrow is not installed."""
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
