"""Files and folders are written completely or not at all, and a full disk is named."""

import errno
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from nuclei_unet import files
from nuclei_unet.files import fresh_file, fresh_folder


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of its own with 300 kB, in memory; only administrators of Linux systems get one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def write(path):
    path.write_bytes(bytes(10**6))


def write_arrays(path):
    with path.open("wb") as file:
        np.savez(file, np.zeros(10**6))


def write_model(path):
    model = keras.Sequential([keras.layers.Input((1000,)), keras.layers.Dense(1000)])
    model.save(path.with_suffix(".weights.h5") if path.suffix != ".keras" else path)


def write_silently(path):
    """As OpenCV does: its caller raises without a number."""
    with pytest.raises(OSError, match="No space"):
        write(path)
    raise OSError(f"cannot write {path}")


@pytest.mark.parametrize(
    ("writer", "name"),
    [(write, "a"), (write_arrays, "a.npz"), (write_model, "model.keras"), (write_model, "a.h5"), (write_silently, "a")],
)
def test_a_full_disk_is_named(writer, name, small_disk):
    said = rf"No space left on device \(\d.\d MB free\): .*{name}"
    with pytest.raises(OSError, match=said) as raised, fresh_file(small_disk / name) as path:
        writer(path)
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(small_disk / name)
    assert not [path for path in small_disk.iterdir() if path.suffix != ".h5"]


def test_a_full_disk_is_named_for_a_folder(small_disk):
    said = r"No space left on device .*: '.*/folder'"
    with pytest.raises(OSError, match=said), fresh_folder(small_disk / "folder") as folder:
        write(folder / "a")
    assert not list(small_disk.iterdir())


def test_other_errors_stay_as_they_are(tmp_path, monkeypatch):
    for error in (PermissionError(errno.EACCES, "Permission denied", "x"), OSError("cannot write x")):
        with pytest.raises(OSError) as raised, fresh_file(tmp_path / "a"):
            raise error
        assert raised.value is error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", files.FULL)
def test_limits_and_quotas_are_named(number, tmp_path):
    with pytest.raises(OSError, match=r"MB free\): .*/a'") as raised, fresh_file(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert raised.value.errno == number
