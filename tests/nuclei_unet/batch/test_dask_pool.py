"""`nuclei-unet predict` on a Dask cluster: a real scheduler, real workers, and what comes of those that are killed."""

from functools import partial

import cv2
import numpy as np
import pytest
import tifffile

from benchmarks.fault_injection.project import wait_for
from nuclei_unet.batch import dask_pool, pool
from pipeline.dataset import synthetic
from pipeline.process import free_port
from tests import cli, dask_cluster

pytestmark = pytest.mark.slow
call = partial(cli.call, "predict", "--fast")
start = partial(cli.start, "-m", "nuclei_unet", "predict", "--fast")


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
    assert call(images, out) == 1 and len(cli.results(out)) > 25  # one image is broken
    return out


def done(out):
    return len(list(out.glob("*_labels.tif")))


def test_a_killed_worker_and_one_that_joins_late_change_nothing(images, expected, tmp_path):
    out = tmp_path / "out"
    with dask_cluster.cluster() as (address, worker):
        first = worker()
        run = start(images, out, "--scheduler", address)
        wait_for(lambda: done(out) >= 4, run)
        worker()
        wait_for(lambda: done(out) >= 8, run)
        first.kill()
        printed, said = run.communicate(timeout=120)
    assert run.returncode == 1 and "Traceback" not in said
    assert address in printed and "dashboard" in printed and "24 images" in printed
    # Listed, tried again, and never lost.
    assert "failed, tried again at the end" in said and "failed again" in said and "22.png" in said
    assert cli.results(out) == cli.results(expected)


def test_a_scheduler_that_goes_is_named_and_the_same_command_goes_on(images, expected, tmp_path):
    out = tmp_path / "out"
    with dask_cluster.cluster() as (address, worker):
        worker()
        run = start(images, out, "--scheduler", address)
        wait_for(lambda: done(out) >= 4, run)
    _, said = run.communicate(timeout=120)
    assert run.returncode == 1 and "scheduler" in said and "Traceback" not in said
    assert 4 <= done(out) < 24
    assert call(images, out) == 1
    assert cli.results(out) == cli.results(expected)


def test_nobody_answers(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dask_pool, "CONNECT", "1s")
    address = f"tcp://127.0.0.1:{free_port()}"
    monkeypatch.setenv(pool.VARIABLE, address)
    line = cli.error(capsys, call, images, tmp_path / "out")
    assert line.startswith(f"error: {address}: no Dask scheduler answers") and "dask scheduler" in line
    assert call(images, tmp_path / "out", "--jobs", 2, "--scheduler", address) == 2
    assert "not allowed with" in capsys.readouterr().err


def test_a_worker_with_other_versions_is_refused():
    wrong = dict(dask_pool.stamp(done), numpy="1.0")
    with pytest.raises(pool.InputError, match="another numpy .* than this machine"):
        dask_pool._on_worker(done, wrong, None, None)
