"""`nuclei-unet predict` on a Dask cluster: a real scheduler, real workers, and what comes of those that are killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from nuclei_unet.batch import dask_pool, pool
from nuclei_unet.commands.main import main
from pipeline.dataset import synthetic
from pipeline.process import free_port
from tests import ROOT, dask_cluster

pytestmark = pytest.mark.slow
OPTIONS = ("--fast",)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of 24 different images, one of them broken, and one that is a stack."""
    folder = tmp_path_factory.mktemp("images")
    *_, (_, image, _) = synthetic.held_out_images(2, 2018)
    grey = np.ascontiguousarray(image[..., 0])
    for number in range(22):
        assert cv2.imwrite(str(folder / f"{number:02}.png"), np.roll(grey, 7 * number, axis=0))
    (folder / "22.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    tifffile.imwrite(
        folder / "23.tif", np.stack([grey, grey[::-1]]), photometric="minisblack", metadata={"axes": "ZYX"}
    )
    return folder


@pytest.fixture(scope="module")
def expected(images, tmp_path_factory):
    """Return the folder of results of one process."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert call(images, out) == 1  # one is broken
    return out


def call(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *OPTIONS, *map(str, arguments)])
    return stopped.value.code


def start(*arguments):
    command = [sys.executable, "-m", "nuclei_unet", "predict", *OPTIONS, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background jobs, and their children, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def same(one: Path, two: Path):
    """Compare all files but those that name times and folders."""
    names = {path.relative_to(one) for path in one.rglob("*") if path.is_file() and ".nuclei-unet" not in str(path)}
    assert names == {p.relative_to(two) for p in two.rglob("*") if p.is_file() and ".nuclei-unet" not in str(p)}
    assert len(names) > 25
    for name in names - {Path("run.json"), Path("summary.html")}:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def wait_for(out, count, process):
    deadline = time.monotonic() + 90
    while len(list(out.glob("*_labels.tif"))) < count and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)


def test_a_killed_worker_and_one_that_joins_late_change_nothing(images, expected, tmp_path):
    out = tmp_path / "out"
    with dask_cluster.cluster() as (address, worker):
        first = worker()
        run = start(images, out, "--scheduler", address)
        wait_for(out, 4, run)
        worker()
        wait_for(out, 8, run)
        first.kill()
        printed, said = run.communicate(timeout=120)
    assert run.returncode == 1 and "Traceback" not in said
    assert address in printed and "dashboard" in printed and "24 images" in printed
    # Listed, tried again, and never lost.
    assert "failed, tried again at the end" in said and "failed again" in said and "22.png" in said
    same(expected, out)


def test_a_scheduler_that_goes_is_named_and_the_same_command_goes_on(images, expected, tmp_path):
    out = tmp_path / "out"
    with dask_cluster.cluster() as (address, worker):
        worker()
        run = start(images, out, "--scheduler", address)
        wait_for(out, 4, run)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 1 and "scheduler" in said and "Traceback" not in said
    assert 4 <= len(list(out.glob("*_labels.tif"))) < 24
    assert call(images, out) == 1
    same(expected, out)


def test_nobody_answers(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dask_pool, "CONNECT", "1s")
    address = f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setenv(pool.VARIABLE, address)
    assert call(images, tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {address}: no Dask scheduler answers") and "dask scheduler" in line
    with pytest.raises(SystemExit):
        main(["predict", str(images), str(tmp_path / "out"), "--jobs", "2", "--scheduler", address])
    assert "not allowed with" in capsys.readouterr().err


def test_a_worker_with_other_versions_is_refused():
    wrong = dict(dask_pool.stamp(wait_for), numpy="1.0")
    with pytest.raises(pool.InputError, match="another numpy .* than this machine"):
        dask_pool._on_worker(wait_for, wrong, None, None)
