"""Changes of the state that a stopped training keeps, made to do harm."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


class _Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return open, ("harm", "w")


def _replace(path: Path, member: str, data: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {member: data}).items():
            archive.writestr(name, content)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _claimed(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**43,)})
    _replace(path, "variable0.npy", header.getvalue())


STATES: dict[str, Callable[[Path], None]] = {
    "code": lambda path: _replace(path, "state.npy", _npy(np.array([_Code()], object))),
    "terabytes": _claimed,
    "deep": lambda path: _replace(path, "state.npy", _npy(np.array("[" * 10**5))),
    "other-shape": lambda path: _replace(path, "variable0.npy", _npy(np.zeros((2, 2, 2, 2, 2), np.float32))),
}
