"""The pixels that training draws from: in memory, then in a file, and made again only if there is no room."""

import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from nuclei_unet.training.pixel_store import PixelStore


class Maker:
    """Makes the arrays of a number, 60 bytes each, and counts how often."""

    def __init__(self):
        self.made = Counter()

    def __call__(self, number):
        self.made[number] += 1
        return np.full((4, 5), number, np.uint8), np.full((2, 5, 2), number + 300, np.uint16)


def check(store, number):
    first, second = store.get(number)
    assert first.shape == (4, 5) and first.dtype == np.uint8 and (first == number).all()
    assert second.shape == (2, 5, 2) and second.dtype == np.uint16 and (second == number + 300).all()


@pytest.mark.parametrize(("memory", "held"), [(0, 0), (59, 0), (60, 1), (150, 2), (300, 5), (10**6, 5)])
def test_what_fits_into_memory_is_made_at_once_and_all_of_it_once(memory, held, tmp_path):
    make = Maker()
    store = PixelStore(make, 5, memory, tmp_path)
    # One more may be made to see that it does not fit.
    assert set(range(held)) <= set(make.made) <= set(range(held + 1))
    make.made.clear()
    for number in [4, 0, 3, 2, 1, *range(5)] * 2:
        check(store, number)
    assert make.made == Counter(range(held, 5))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made(tmp_path):
    store = PixelStore(Maker(), 1, 0, tmp_path / "a" / "b")
    check(store, 0)
    check(store, 0)


def test_arrays_that_are_views_are_kept_as_they_look(tmp_path):
    wide = np.arange(24, dtype=np.uint8).reshape(4, 6)
    store = PixelStore(lambda number: (wide[:, ::2].T, wide[1:2]), 1, 0, tmp_path)
    for _ in range(2):
        transposed, row = store.get(0)
        np.testing.assert_array_equal(transposed, wide[:, ::2].T)
        np.testing.assert_array_equal(row, wide[1:2])


def test_what_is_returned_may_be_written_to(tmp_path):
    store = PixelStore(Maker(), 1, 0, tmp_path)
    check(store, 0)
    store.get(0)[0][:] = 9
    check(store, 0)


def test_threads_share_it(tmp_path):
    store = PixelStore(Maker(), 50, 600, tmp_path)
    numbers = np.random.default_rng(0).integers(50, size=2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: check(store, number), numbers))


def test_a_full_disk_is_said_once_and_the_pixels_are_made_again(tmp_path, monkeypatch, capsys):
    make = Maker()
    store = PixelStore(make, 3, 0, tmp_path)
    check(store, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    make.made.clear()
    for number in [0, 1, 2] * 2:
        check(store, number)
    assert make.made == {1: 2, 2: 2}
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No space left" in said and "computes pixels again for each crop" in said
