"""What happens if a process is killed, a disk is full or a server is gone? Each fault for real, and then a rerun.

    python -m benchmarks.faults [--short] [NAME ...]

Runs the pipeline on a small synthetic data set in temporary copies of the project, once undisturbed, then once for each
fault. After the cause is gone `dvc repro` must succeed, and every output must have the hash of the undisturbed run.
Writes benchmarks/results/faults.md (all faults) and fails if anything was lost. `--short`: the four that CI runs.
"""

import argparse
import ctypes
import os
import random
import re
import resource
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pandas as pd
from tqdm import tqdm

from pipeline import layout, params
from pipeline.machine import describe
from pipeline.process import OUTSIDE, environment, free_port, is_served
from pipeline.tools.project import copy_project
from pipeline.tools.verify import hashes
from pipeline.tracking import names

RESULT = Path("benchmarks/results/faults.md")
EPOCHS = 8
SMALL = {
    "download.source": "synthetic",
    "download.synthetic.train": 24,
    "download.synthetic.test": 4,
    "preprocess.validation_fraction": 0.4,
    "train.crop_size": 128,
    "train.batch_size": 4,
    "train.epochs": EPOCHS,
    "train.steps_per_epoch": 10,
    "train.model.filters": [16, 32, 64],
    "train.model.dropout": [0, 0, 0.2],
    "evaluate.orientations": 1,
    "evaluate.scales": [1],
    "visualize.examples": 1,
    "visualize.dpi": 40,
}
SHORT = (
    "train: SIGKILL",
    "dvc killed, its stage lives on",
    "MLflow: nobody listens",
    "the loss explodes",
)
FAULTS: dict[str, Callable[["Project"], str]] = {}


def main() -> None:
    """Provoke the faults and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of: {'; '.join(FAULTS)} (default: all)")
    parser.add_argument("--short", action="store_true", help=f"only: {'; '.join(SHORT)}")
    arguments = parser.parse_args()
    for name in set(arguments.names) - set(FAULTS):
        parser.error(f"no fault {name!r}; there are: {'; '.join(FAULTS)}")
    # A command that a shell starts in the background ignores Ctrl-C, and so would all its child processes.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = arguments.names or (SHORT if arguments.short else tuple(FAULTS))
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        fresh = Project(Path(folder, "fresh"))
        copy_project(Path.cwd(), fresh.folder)
        fresh.set(SMALL)
        prepared = fresh.copy("prepared")
        prepared.repro("preprocess")
        undisturbed = prepared.copy("undisturbed")
        undisturbed.repro()
        wanted = hashes(undisturbed.folder)
        rows = []
        for number, name in enumerate(tqdm(chosen, "faults", disable=None)):
            start = fresh if name.startswith(("download", "preprocess")) else prepared
            project = start.copy(f"fault{number}")
            try:
                what = FAULTS[name](project)
                now = hashes(project.folder)
                lost = [output for (stage, output), value in wanted.items() if now.get((stage, output)) != value]
                left = [path.name for pattern in (".partial-*", ".resume/*") for path in project.folder.rglob(pattern)]
                result = ", ".join([f"other bytes: {name}" for name in lost] + [f"left over: {name}" for name in left])
            except Failed as error:
                what, result = str(error), "failed"
            rows.append({"fault": name, "what happened": what, "anything lost": result or "no"})
            tqdm.write(f"{name}: {what} Anything lost: {result or 'no'}")
            shutil.rmtree(project.folder, ignore_errors=True)
    table = pd.DataFrame(rows)
    if chosen == tuple(FAULTS):
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(f"{describe('dvc', 'mlflow')}\n\n{table.to_markdown(index=False)}\n")
    if (table["anything lost"] != "no").any():
        raise SystemExit("error: something was lost")
    print(f"{len(table)} faults, nothing lost")


class Failed(Exception):
    """A fault had an effect that it must not have."""


class Project:
    """A copy of the project in which commands run, each in a process group of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = environment(without=OUTSIDE)

    def copy(self, name: str) -> "Project":
        """Copy the folder beside itself."""
        return Project(shutil.copytree(self.folder, self.folder.with_name(name), symlinks=True).resolve())

    def set(self, values: dict[str, object]) -> None:
        """Change parameters."""
        path = self.folder / layout.PARAMS
        path.write_text(params.override(path.read_text(), values))

    def start(self, *command: str, **options) -> subprocess.Popen:
        """Start a command; what it prints goes to a file of its own."""
        self.last_log = self.folder / f"command-{time.monotonic_ns()}.log"
        with self.last_log.open("w") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )

    def log(self) -> str:
        """Return what the last command printed."""
        return self.last_log.read_text()

    def run(self, *command: str, **options) -> int:
        """Run a command to its end; return its exit code."""
        return self.start(*command, **options).wait()

    def repro(self, *arguments: str, says: str = "") -> str:
        """Run `dvc repro`, which must succeed and print the text `says`; return what it printed."""
        if self.run("dvc", "repro", *arguments):
            raise Failed(f"dvc repro failed: {self.error()}")
        if says not in self.log():
            raise Failed(f"does not say: {says}")
        return self.log()

    def refused(self, *command: str, says: str, **options) -> str:
        """Run a command that has to fail with one clear line; return that line."""
        code = self.run(*command, **options)
        if not code:
            raise Failed("was not noticed")
        if "Traceback" in self.log() or not re.search(says, self.error()):
            raise Failed(f"no clear line: {self.error()}")
        return self.error()

    def error(self) -> str:
        """Return the last command's error line, its own if possible, not that of DVC."""
        lines = [line for line in self.log().splitlines() if line.lower().startswith("error")] or [self.log()[-300:]]
        return lines[0].replace(str(self.folder), ".").replace("|", "/")

    def interrupt(self, after: Callable[[], object], kind: signal.Signals, *stages: str) -> None:
        """Start `dvc repro`, wait for something, and send a signal to it and all that it started."""
        process = self.start("dvc", "repro", *stages)
        wait_for(after, process)
        os.killpg(process.pid, kind)
        process.wait()
        # A process that ignores the signal would disturb the rerun.
        wait_for(lambda: not alive(process.pid))

    def epochs_kept(self) -> int:
        """Return the number of epochs that `dvc repro` has printed."""
        return len(re.findall(r"^epoch +\d+/\d+ ", self.log(), re.MULTILINE))


def alive(group: int) -> bool:
    """Whether a process group has members."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition: Callable[[], object], process: subprocess.Popen | None = None, seconds: float = 180) -> None:
    """Wait until something is true, or `process` has ended."""
    end = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None:
            return
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:.0f} s in vain")
        time.sleep(0.02)


def fault(name: str):
    """Add a function to the table. It provokes the fault, makes the pipeline succeed, and says what happened."""

    def add(function):
        FAULTS[name] = function
        return function

    return add


# ---- killed


def _killed_in_training(kind: signal.Signals):
    def provoke(project: Project) -> str:
        project.interrupt(lambda: project.epochs_kept() >= 3, kind)
        said = re.search(r"going on after epoch \d+ of \d+", project.repro())
        if not said:
            raise Failed("started from the beginning")
        return f"`dvc repro` again: {said[0]}."

    return provoke


for kind in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
    fault(f"train: {kind.name}")(_killed_in_training(kind))


@fault("train: SIGKILL at eight random moments, one after the other")
def _(project):
    moments = random.Random(2018)
    for _ in range(8):
        process = project.start("dvc", "repro")
        # From the start of Python to the middle of the training.
        time.sleep(moments.uniform(1, 20))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    project.repro()
    return "`dvc repro` went on each time."


@fault("train: state of the killed run damaged")
def _(project):
    project.interrupt(lambda: project.epochs_kept() >= 3, signal.SIGKILL)
    (state,) = project.folder.glob(".resume/train-*.npz")
    state.write_bytes(state.read_bytes()[:-1000])
    project.repro(says="is damaged; starting from the first epoch")
    return "A warning; started from the first epoch."


@fault("train: killed, then another learning rate, then the first one again")
def _(project):
    project.interrupt(lambda: project.epochs_kept() >= 3, signal.SIGKILL)
    rate = params.load(project.folder / layout.PARAMS).train.learning_rate
    project.set({"train.learning_rate": rate / 2})
    if "going on" in project.repro("train"):
        raise Failed("used the state from other parameters")
    project.set({"train.learning_rate": rate})
    project.repro()
    return "The state from other parameters is not used."


@fault("dvc killed, its stage lives on")
def _(project):
    process = project.start("dvc", "repro")
    wait_for(lambda: project.epochs_kept() >= 2, process)
    process.kill()
    process.wait()
    # Paused, so that it is certainly still there.
    os.killpg(process.pid, signal.SIGSTOP)
    said = project.refused("dvc", "repro", says="another run of this stage is still going")
    os.killpg(process.pid, signal.SIGCONT)
    wait_for(lambda: not alive(process.pid))
    project.repro()
    return f"`dvc repro` at once: {said}. After the orphan's end it succeeds."


@fault("two `dvc repro` at once")
def _(project):
    process = project.start("dvc", "repro")
    wait_for(lambda: project.epochs_kept() >= 1, process)
    os.killpg(process.pid, signal.SIGSTOP)
    said = project.refused("dvc", "repro", says=".")
    os.killpg(process.pid, signal.SIGCONT)
    if process.wait():
        raise Failed("the first one failed")
    project.repro()
    return f"The second one: {said[:120]}. The first one ends well."


@fault("download and preprocess: SIGKILL at ten random moments")
def _(project):
    moments = random.Random(7)
    for _ in range(10):
        process = project.start("dvc", "repro", "preprocess")
        time.sleep(moments.uniform(1, 6))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(lambda group=process.pid: not alive(group))
    project.repro()
    return "`dvc repro` succeeds; no half-written image is taken for a whole one."


@fault("download: the server breaks off, then the stage is killed")
def _(project):
    content = random.Random(1).randbytes(3_000_000)
    asked = []

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Range"))
            first = int(asked[-1].removeprefix("bytes=").removesuffix("-")) if asked[-1] else 0
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            for start in range(first, len(content), 100_000):
                self.wfile.write(content[start : start + 100_000])
                if len(asked) == 1 and start > first + 500_000:
                    return
                time.sleep(0.1)

        def log_message(self, *_):
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Slow)) as port:
        code = f"from pathlib import Path; from pipeline import download; download.fetch('http://127.0.0.1:{port}/a', "
        command = (sys.executable, "-c", code + "Path('data/downloads/a'))")
        process = project.start(*command)
        wait_for(lambda: len(asked) == 2, process)
        time.sleep(0.5)
        process.kill()
        process.wait()
        if (project.folder / "data/downloads/a").exists():
            raise Failed("a half file has the name of a whole one")
        project.run(*command)
    if (project.folder / "data/downloads/a").read_bytes() != content:
        raise Failed("other bytes")
    if None in asked[1:]:
        raise Failed("started from the beginning")
    project.repro()
    return f"Went on at {', '.join(asked[1:])}; the same bytes."


# ---- disk and memory


@fault("train: no room for the files (limit of 1 MB a file)")
def _(project):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))}
    said = project.refused("dvc", "repro", says="error: train: File too large", **limit)
    project.repro()
    return f"{said}. With room `dvc repro` succeeds."


def obey_file_modes() -> None:
    """Make file permissions apply to root, too, from the next `exec` on: drop CAP_DAC_OVERRIDE (Linux)."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1)


@fault("evaluate: reports/ cannot be written to")
def _(project):
    project.repro("train")
    reports = project.folder / "reports"
    reports.chmod(0o555)
    said = project.refused(
        sys.executable,
        "-m",
        "pipeline.evaluate",
        says="error: evaluate: Permission denied",
        preexec_fn=obey_file_modes,
    )
    reports.chmod(0o755)
    project.repro()
    return f"{said}. With the right to write `dvc repro` succeeds."


@fault("train: out of memory (address space limited)")
def _(project):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (4 * 10**9, 4 * 10**9))}
    if project.run("dvc", "repro", **limit) == 0:
        raise Failed("was not noticed")
    said = project.error()
    project.repro()
    return f"{said[:160]}. With memory `dvc repro` succeeds."


# ---- the loss


@fault("the loss explodes")
def _(project):
    settings = params.load(project.folder / layout.PARAMS).train
    before = {"train.learning_rate": settings.learning_rate, "train.model.normalization": settings.model.normalization}
    # Legal, but nothing holds the maps together: the highest rate, and no batch normalization.
    project.set({"train.learning_rate": 10.0, "train.model.normalization": "none"})
    said = project.refused("dvc", "repro", says=r"train.learning_rate: the loss became .* at step \d+")
    project.set(before)
    project.repro()
    return f"{said}. With the old rate `dvc repro` succeeds."


# ---- MLflow


@contextmanager
def serving(server: socketserver.BaseServer):
    """Serve in the background; yields the port."""
    server.daemon_threads = True
    # Killed clients are expected here.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


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


# ---- damaged files


@fault("evaluate: model file cut short")
def _(project):
    project.repro("train")
    model = project.folder / layout.TRAINED
    # A copy: the file may be a link to DVC's cache.
    data = model.read_bytes()
    model.unlink()
    model.write_bytes(data[:-1000])
    said = project.refused(sys.executable, "-m", "pipeline.evaluate", says=f"{layout.TRAINED}: ")
    project.repro()
    return f"{said}. `dvc repro` brings it back."


@fault("train: an image of data/processed/ cut short")
def _(project):
    image = next((project.folder / "data/processed/images").iterdir())
    data = image.read_bytes()
    image.unlink()
    image.write_bytes(data[: len(data) // 2])
    said = project.refused(sys.executable, "-m", "pipeline.train", says=image.name[:8])
    project.repro()
    return f"{re.sub(r'[0-9a-f]{60,}', '<id>', said)}. `dvc repro` brings it back."


if __name__ == "__main__":
    main()
