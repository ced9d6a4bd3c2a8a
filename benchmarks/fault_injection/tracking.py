"""MLflow servers that are away, hang or are killed."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import mlflow

from benchmarks.fault_injection.project import EPOCHS, Failed, Project, alive, fault, wait_for
from pipeline.process import environment, free_port, is_served
from pipeline.tracking import names


@contextmanager
def mlflow_server(store: Path, port: int):
    """Run a real MLflow server; its SQLite database and the artifacts that clients send are in a folder."""
    store.mkdir(exist_ok=True)
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{store}/mlflow.db"),
        *("--artifacts-destination", str(store / "files")),
    )
    with (store / "log").open("a") as log:
        variables = environment(without=("MLFLOW",))
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=store, env=variables, start_new_session=True)
    try:
        wait_for(lambda: is_served(port), process)
        yield
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _complete(port: int) -> None:
    """Fail unless a server has one run, finished, with every epoch once."""
    client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
    runs = client.search_runs([client.get_experiment_by_name(names.EXPERIMENT).experiment_id])
    if [run.info.status for run in runs] != ["FINISHED"]:
        raise Failed(f"{len(runs)} runs, {[run.info.status for run in runs]}")
    history = client.get_metric_history(runs[0].info.run_id, names.curve("loss"))
    # In order of arrival: what a server missed comes after later epochs.
    epochs = sorted(metric.step for metric in history)
    if epochs != list(range(1, EPOCHS + 1)):
        raise Failed(f"epochs in MLflow: {epochs}")


def _use(project: Project, port: int) -> int:
    project.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    return port


def _synced(project: Project) -> str:
    """Start a server after a training that had none, and let `make sync` send what it lacks."""
    port = _use(project, free_port())
    with mlflow_server(project.folder / "server", port):
        if project.run(sys.executable, "-m", "pipeline.tools.sync"):
            raise Failed(f"make sync: {' '.join(project.log().split())[-500:]}")
        _complete(port)
    return "`make sync` brought all epochs to a server."


def _with_bad_server(listens: bool):
    def provoke(project: Project) -> str:
        # It takes connections and never answers, or refuses them.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            _use(project, silent.getsockname()[1] if listens else free_port())
            said = project.repro()
        if "MLflow cannot be written to" not in said:
            raise Failed("no warning")
        return f"A warning; everything ran. {_synced(project)}"

    return provoke


fault("MLflow: nobody listens")(_with_bad_server(listens=False))
fault("MLflow: accepts and never answers")(_with_bad_server(listens=True))


@fault("MLflow: server killed in mid-training, back again before its end")
def _(project):
    port = _use(project, free_port())
    with mlflow_server(project.folder / "server", port):
        process = project.start("dvc", "repro")
        wait_for(lambda: project.epochs_kept() >= 2, process)
    wait_for(lambda: project.epochs_kept() >= 4, process)
    with mlflow_server(project.folder / "server", port):
        if process.wait():
            raise Failed(f"dvc repro failed: {project.error()}")
        _complete(port)
    return "Training goes on; at its end the server has every epoch once, in the same run."
