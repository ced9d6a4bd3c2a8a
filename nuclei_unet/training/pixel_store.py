"""Keeps the pixels that training draws crops from: in memory, and what does not fit there in one file on disk."""

import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nuclei_unet.files import check_room

# Bytes that are left free on the disk, for what has to be written at the end.
SPARED = 10**9

Pixels = tuple[np.ndarray, ...]
# Shape and dtype of each array.
Forms = list[tuple[tuple[int, ...], np.dtype]]


class PixelStore:
    """Keeps arrays, of any shapes and dtypes, by number: the first in memory, the others in a file.

    The file has no name, so nothing is left of it however the process ends. Threads may share a store.
    """

    def __init__(self, make: Callable[[int], Pixels], count: int, memory: int, folder: Path | None = None):
        """Keep what `make(number)` returns for the numbers below `count`.

        Those that fit into `memory` bytes are made now, others when they are asked for. Their file is in `folder`, or
        where the system has its temporary files.
        """
        self._make, self._folder = make, folder or Path(tempfile.gettempdir())
        self._in_memory: dict[int, Pixels] = {}
        self._in_file: dict[int, tuple[int, Forms]] = {}
        self._file, self._end, self._full = None, 0, False
        self._lock = threading.Lock()
        for number in tqdm(range(count), "reading", unit="image", delay=1, leave=False, disable=None):
            pixels = make(number)
            memory -= _bytes(pixels)
            if memory < 0:
                break
            self._in_memory[number] = pixels

    def get(self, number: int) -> Pixels:
        """Return the arrays of a number; they are made again only if the disk has no room for them."""
        if number in self._in_memory:
            return self._in_memory[number]
        if number in self._in_file:
            return self._read(*self._in_file[number])
        pixels = self._make(number)
        with self._lock:
            if number not in self._in_file and not self._full:
                self._write(number, pixels)
        return pixels

    def _write(self, number: int, pixels: Pixels) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            check_room(self._folder / "pixels", _bytes(pixels) + SPARED)
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - open as long as the store lives
            self._file.seek(self._end)
            for array in pixels:
                self._file.write(np.ascontiguousarray(array))
            self._file.flush()
        except OSError as error:
            self._full = True
            print(f"warning: {error}: from here on, training computes pixels again for each crop", file=sys.stderr)
            return
        self._in_file[number] = self._end, [(array.shape, array.dtype) for array in pixels]
        self._end += _bytes(pixels)

    def _read(self, start: int, forms: Forms) -> Pixels:
        pixels = tuple(np.empty(shape, dtype) for shape, dtype in forms)
        with self._lock:
            self._file.seek(start)
            for array in pixels:
                if self._file.readinto(array) != array.nbytes:
                    raise OSError("the temporary file of pixels for training was cut short")
        return pixels


def _bytes(pixels: Pixels) -> int:
    return sum(array.nbytes for array in pixels)
