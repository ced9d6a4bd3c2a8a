"""Changes of the state that a stopped training keeps, made to do harm."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.zips import rewrite


class _Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return open, ("harm", "w")


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _claimed(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**43,)})
    rewrite(path, "variable0.npy", header.getvalue())


STATES: dict[str, Callable[[Path], None]] = {
    "code": lambda path: rewrite(path, "state.npy", _npy(np.array([_Code()], object))),
    "terabytes": _claimed,
    "deep": lambda path: rewrite(path, "state.npy", _npy(np.array("[" * 10**5))),
    "other-shape": lambda path: rewrite(path, "variable0.npy", _npy(np.zeros((2, 2, 2, 2, 2), np.float32))),
}
