"""Several processes that train one network: as one does, until one of them dies, and on from there."""

import json
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from nuclei_unet.network import runtime
from nuclei_unet.training import fit, several_machines
from pipeline.process import free_port
from tests import ROOT
from tests.nuclei_unet.training import examples
from tests.refusals import refused

# A worker: its number, the epoch in whose end it dies (0: none), and what its state is called.
WORKER = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv.pop(1))
from pipeline import stage
number, dies, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
sys.argv[0] = "train.py"

class Log:
    def epoch(epoch, metrics):
        if epoch == dies:
            os.kill(os.getpid(), signal.SIGKILL)

    def picture(epoch, pixels):
        Path("picture").touch()

def main():
    from nuclei_unet.network import runtime
    from nuclei_unet.training import several_machines
    from tests.nuclei_unet.training import examples
    settings = examples.tiny("multiworker")
    runtime.configure(settings)
    workers = several_machines.start(several_machines.team(), settings)
    model, history = several_machines.train(workers, *examples.images(), settings, 1, Path(name), Log)
    examples.np.savez(f"weights{number}.npz", *model.get_weights())
    history.to_csv(f"history{number}.csv", index=False)

stage.run(main, lambda: f"-{number}" if number else "", tensorflow=True)
"""
STATE = "train-1.npz"


def team_of(number, ports):
    addresses = [f"localhost:{port}" for port in ports]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}})


def workers(folder, dies=(0, 0), names=(STATE, STATE), ports=None, count=2):
    """Run workers in one folder to their ends; return the ports, and each one's exit code, stdout and stderr."""
    ports = ports or [free_port(), free_port()]
    started = []
    for number in range(count):
        command = [sys.executable, "-c", WORKER, str(ROOT), str(number), str(dies[number]), names[number]]
        options = {"cwd": folder, "env": os.environ | {"TF_CONFIG": team_of(number, ports)}, "text": True}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options))
    try:
        said = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    return ports, *((process.returncode, *lines) for process, lines in zip(started, said, strict=True))


def weights(folder, number):
    with np.load(folder / f"weights{number}.npz") as file:
        return [file[name] for name in file.files]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    _, chief, other = workers(folder)
    assert (chief[0], other[0]) == (0, 0), chief[2] + other[2]
    assert chief[2] == other[2] == ""
    # Only the chief shows the epochs.
    assert chief[1].count("\nepoch ") == 4 and "epoch" not in other[1]
    return folder


@pytest.mark.slow
def test_two_workers_train_as_one_does(undisturbed):
    settings = examples.tiny("single")
    runtime.configure(settings)
    model, history = fit.train(*examples.images(), settings, 1, lambda *_: None)
    assert (undisturbed / "picture").exists()
    ours = [weights(undisturbed, number) for number in (0, 1)]
    for one, other, single in zip(*ours, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(one, single, atol=2e-3)
    histories = [pd.read_csv(undisturbed / f"history{number}.csv") for number in (0, 1)]
    pd.testing.assert_frame_equal(*histories)
    # Up to rounding: a step of Adam does not care how large a gradient near zero is.
    pd.testing.assert_frame_equal(histories[0], history, rtol=2e-3)


@pytest.mark.slow
def test_a_worker_that_dies_stops_the_other_and_both_go_on(undisturbed, tmp_path):
    ports, chief, other = workers(tmp_path, dies=(0, 2))
    said = f"worker 1 (localhost:{ports[1]}) is gone; start all workers again and they go on after epoch 2"
    assert other[0] == -signal.SIGKILL
    assert (chief[0], chief[2]) == (1, f"error: train: {said}\n")
    _, chief, other = workers(tmp_path)
    assert (chief[0], other[0]) == (0, 0), chief[2] + other[2]
    assert "going on after epoch 2 of 4" in chief[1] and chief[1].count("\nepoch ") == 2
    for number in (0, 1):
        for name in (f"weights{number}.npz", f"history{number}.csv"):
            assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes()


@pytest.mark.slow
def test_a_chief_that_dies_stops_the_other(tmp_path):
    # Before it has kept the state of this epoch.
    ports, chief, other = workers(tmp_path, dies=(2, 0))
    said = f"worker 0 (localhost:{ports[0]}) is gone; start all workers again and they go on after epoch 1"
    assert chief[0] == -signal.SIGKILL
    assert (other[0], other[2]) == (1, f"error: train: {said}\n")


@pytest.mark.slow
def test_workers_with_other_parameters_are_named(tmp_path):
    _, *ends = workers(tmp_path, names=(STATE, "train-2.npz"))
    for code, _, stderr in ends:
        assert code == 1 and stderr.startswith("error: train: train.strategy: worker 1 has other parameters, code, ")
        assert stderr.count("\n") == 1


@pytest.mark.slow
def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        _, (code, _, stderr) = workers(tmp_path, ports=[port, free_port()], count=1)
    said = f"error: train: TF_CONFIG: worker 0 cannot listen at localhost:{port}; end what runs there, or choose"
    assert code == 1 and stderr.startswith(said) and stderr.count("\n") == 1


def test_a_missing_team(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    refused("^train.strategy: multiworker needs TF_CONFIG, .* set train.strategy to auto", several_machines.team)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{" * 100_000, "not of the form"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}', "not of the form"),
        ('{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 0}}', "not of the form"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', "names one worker only"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}', "names a worker twice"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}', "there is no worker 2"),
    ],
)
def test_a_damaged_team(text, said, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    refused(f"^TF_CONFIG: {said}", several_machines.team)


def test_a_batch_that_cannot_be_shared(settings):
    said = "train.batch_size: 16 crops cannot be shared evenly by 3 devices of 3"
    refused(said, several_machines.start, several_machines.Team(("a:1", "b:1", "c:1"), 0), settings.train)
