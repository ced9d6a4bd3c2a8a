"""MLflow servers that are away, hang, fail or lose their data."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow

from benchmarks.fault_injection.project import EPOCHS, Failed, Project, alive, fault, serving, wait_for
from pipeline import layout
from pipeline.process import environment, free_port, is_served
from pipeline.tracking import names


@contextmanager
def mlflow_server(store: Path, port: int):
    """Run a real MLflow server; its SQLite database and the artifacts that clients send are in a folder."""
    store.mkdir(exist_ok=True)
    variables = environment(without=("MLFLOW",))
    with (store / "log").open("a") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
                *("--workers", "1", "--backend-store-uri", f"sqlite:///{store}/mlflow.db"),
                *("--artifacts-destination", str(store / "files")),
            ],
            stdout=log,
            stderr=log,
            cwd=store,
            env=variables,
            start_new_session=True,
        )
    try:
        wait_for(lambda: is_served(port), process)
        yield
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def curve(port: int) -> list[int]:
    """Return the epochs of the only run on a server, which has to be finished."""
    client = mlflow.MlflowClient(f"http://127.0.0.1:{port}")
    runs = client.search_runs([client.get_experiment_by_name(names.EXPERIMENT).experiment_id])
    if [run.info.status for run in runs] != ["FINISHED"]:
        raise Failed(f"{len(runs)} runs, {[run.info.status for run in runs]}")
    return [metric.step for metric in client.get_metric_history(runs[0].info.run_id, names.curve("loss"))]


def complete(port: int) -> None:
    """Fail if a server does not have every epoch once."""
    if curve(port) != list(range(1, EPOCHS + 1)):
        raise Failed(f"epochs in MLflow: {curve(port)}")


def _synced(project: Project) -> str:
    """Start a server after a training that had none, and let `make sync` send what it lacks."""
    port = free_port()
    project.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    with mlflow_server(project.folder / "server", port):
        if project.run(sys.executable, "-m", "pipeline.tools.sync"):
            raise Failed(f"make sync: {' '.join(project.log().split())[-500:]}")
        complete(port)
    return "`make sync` brought all epochs to a server."


def _with_bad_server(handler: type[BaseHTTPRequestHandler] | None):
    def provoke(project: Project) -> str:
        started = time.monotonic()
        project.repro("train")
        usual = time.monotonic() - started
        other = project.copy(f"{project.folder.name}-bad")
        shutil.rmtree(project.folder)
        shutil.move(other.folder, project.folder)
        (project.folder / layout.STORE).unlink()
        if handler is None:
            port = free_port()
            lost = _train_again(project, port) - usual
        else:
            with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as port:
                lost = _train_again(project, port) - usual
        if "MLflow cannot be written to" not in project.log():
            raise Failed("no warning")
        if lost > 60:
            raise Failed(f"training took {lost:.0f} s longer")
        del project.environment["MLFLOW_TRACKING_URI"]
        project.repro()
        said = _synced(project)
        return f"A warning; training took {max(lost, 0):.0f} s longer. {said}"

    return provoke


def _train_again(project: Project, port: int) -> float:
    project.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    started = time.monotonic()
    project.repro("--force", "--single-item", "train")
    return time.monotonic() - started


class Hangs(BaseHTTPRequestHandler):
    """Accepts and never answers."""

    def handle(self):
        """Wait."""
        time.sleep(600)


class Answers500(BaseHTTPRequestHandler):
    """Answers every request with an error of its own."""

    def do_GET(self):
        """Answer."""
        self.send_error(500)

    do_POST = do_PUT = do_PATCH = do_GET

    def log_message(self, *_):
        """Keep quiet."""


fault("MLflow: nobody listens")(_with_bad_server(None))
fault("MLflow: accepts and never answers")(_with_bad_server(Hangs))
fault("MLflow: answers 500")(_with_bad_server(Answers500))


@fault("MLflow: server killed in mid-training, back again before its end")
def _(project):
    port = free_port()
    project.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    with mlflow_server(project.folder / "server", port):
        process = project.start("dvc", "repro")
        wait_for(lambda: project.epochs_kept() >= 2, process)
    wait_for(lambda: project.epochs_kept() >= 4, process)
    with mlflow_server(project.folder / "server", port):
        if process.wait():
            raise Failed(f"dvc repro failed: {project.error()}")
        complete(port)
    return "Training goes on; at its end the server has every epoch once, in the same run."


@fault("MLflow: server killed in mid-training, back for a later stage")
def _(project):
    port = free_port()
    project.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    with mlflow_server(project.folder / "server", port):
        process = project.start("dvc", "repro", "train")
        wait_for(lambda: project.epochs_kept() >= 2, process)
    if process.wait():
        raise Failed(f"dvc repro failed: {project.error()}")
    with mlflow_server(project.folder / "server", port):
        project.repro()
        complete(port)
    return "The next stage sends the rest; every epoch once, in the same run."


@fault("MLflow: mlflow.db deleted")
def _(project):
    project.repro()
    (project.folder / layout.STORE).unlink()
    return _synced(project)
