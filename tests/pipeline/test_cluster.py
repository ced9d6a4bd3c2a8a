"""Stages on a Dask cluster: real processes, one of which is killed; the outputs are those of one process."""

import shutil
import subprocess
import sys

import pytest

from benchmarks.fault_injection.project import wait_for
from nuclei_unet.files import tree_digest
from pipeline import params
from pipeline.process import OUTSIDE, environment, free_port
from pipeline.tools.project import copy_project
from tests import ROOT, dask_cluster
from tests.pipeline.test_dvc import TINY, set_params

OUTPUTS = {
    "preprocess": ("data/processed", "reports/data_audit.json"),
    "evaluate": ("data/predictions", "models/model.onnx", "reports/scores.json", "reports/per_image.csv"),
}


def stage(folder, name, **variables):
    command = [sys.executable, "-m", f"pipeline.{name}"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(without=(*OUTSIDE, "DASK"), **variables), **options)


def digests(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    return [tree_digest([folder.joinpath(path).relative_to(folder)]) for path in OUTPUTS[name]]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a copy of the project in which the first four stages have run, in one process each."""
    folder = tmp_path_factory.mktemp("project") / "here"
    copy_project(ROOT, folder)
    set_params(folder, TINY | {"download.synthetic.train": 40, "download.synthetic.test": 20, "train.epochs": 1})
    for name in ("download", "preprocess", "train", "evaluate"):
        process = stage(folder, name)
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
    return folder


@pytest.mark.parametrize("name", ["preprocess", "evaluate"])
def test_workers_that_die_or_join_late_change_nothing(name, project, tmp_path, monkeypatch):
    expected = digests(project, name, monkeypatch)
    folder = tmp_path / "cluster"
    shutil.copytree(project, folder)
    for path in OUTPUTS[name]:
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
    partial = folder / f"{OUTPUTS[name][0]}.partial"
    # Workers have the code of the project, but work elsewhere.
    with dask_cluster.cluster(folder) as (address, worker):
        set_params(folder, {"run.scheduler": address})
        first = worker()
        process = stage(folder, name)
        wait_for(lambda: len(list(partial.rglob("*.png"))) >= 3, process)
        first.kill()
        worker()
        worker()
        printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert address in printed and "Traceback" not in printed
    assert digests(folder, name, monkeypatch) == expected


def test_a_scheduler_that_does_not_answer_is_named_and_nothing_is_lost(project, monkeypatch):
    before = digests(project, "preprocess", monkeypatch)
    address = f"tcp://127.0.0.1:{free_port()}"
    process = stage(project, "preprocess", DASK_SCHEDULER_ADDRESS=address)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert printed.startswith(f"error: preprocess: {address}: no Dask scheduler answers")
    assert digests(project, "preprocess", monkeypatch) == before


def test_the_scheduler_is_no_dependency_of_a_stage():
    assert not [line for line in (ROOT / "dvc.yaml").read_text().splitlines() if line.strip().startswith("- run")]
    assert "run" in params.AROUND
