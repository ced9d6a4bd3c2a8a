"""Processes that are killed, or run at the same time."""

import os
import random
import re
import shutil
import signal
import sys
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ruamel.yaml import YAML

from benchmarks.fault_injection.project import SMALL, Failed, Project, alive, fault, serving, wait_for
from pipeline import layout, params
from pipeline.tools.verify import hashes


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


def _beside_an_orphan(project: Project, *command: str, says: str) -> str:
    """Kill a command in its training and start it beside its stage, which lives on; return the line that refuses it.

    Returns when the stage has ended. It must not have been disturbed.
    """
    process = project.start(*command)
    first = project.last_log
    wait_for(lambda: project.epochs_kept() >= 2, process)
    process.kill()
    process.wait()
    # Paused, so that it is certainly still there.
    os.killpg(process.pid, signal.SIGSTOP)
    said = project.refused(*command, says=says)
    os.killpg(process.pid, signal.SIGCONT)
    wait_for(lambda: not alive(process.pid), seconds=600)
    if "Traceback" in first.read_text():
        raise Failed("the orphan was disturbed")
    return said


@fault("dvc killed, its stage lives on")
def _(project):
    said = _beside_an_orphan(project, "dvc", "repro", says="another run of this stage is still going")
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


@fault("download and preprocess: SIGKILL at ten random moments", start="fresh")
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


@fault("download: the server breaks off, then the stage is killed", start="fresh")
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


# What is there when a stage is killed while it writes; each is new in that run.
MOMENTS = {
    "evaluate": (
        "models/.partial-model.keras",
        "data/predictions.partial/*.png",
        "data/predictions/*.png",
        "reports/scores.json",
    ),
    "visualize": ("reports/figures.partial/*.png", "reports/figures/*.png", "reports/report.html"),
}


def _killed_while_it_writes(stage: str):
    def provoke(project: Project) -> str:
        _forget(project, *list(MOMENTS)[list(MOMENTS).index(stage) :])
        for pattern in MOMENTS[stage]:
            written = partial(_is_new, project, pattern, time.time_ns())
            project.interrupt(written, signal.SIGKILL)
            if f"stage '{stage}'" not in project.log() or not written():
                raise Failed(f"not killed at {pattern}")
        project.repro(says=f"Running stage '{stage}'")
        return f"Killed as soon as there was {', '.join(MOMENTS[stage])}. `dvc repro` then writes all of it."

    return provoke


def _forget(project: Project, *stages: str) -> None:
    """Make stages run again, as if they never had: without outputs, entries in dvc.lock, runs in the cache."""
    yaml = YAML()
    lock = yaml.load((project.folder / layout.DVC_LOCK).read_text())
    for stage in stages:
        for output in lock["stages"].pop(stage)["outs"]:
            path = project.folder / output["path"]
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    yaml.dump(lock, project.folder / layout.DVC_LOCK)
    shutil.rmtree(project.folder / ".dvc/cache/runs")


def _is_new(project: Project, pattern: str, since: int) -> bool:
    try:
        return any(path.stat().st_mtime_ns > since for path in project.folder.glob(pattern))
    except FileNotFoundError:  # renamed meanwhile
        return False


for name in MOMENTS:
    fault(f"{name}: SIGKILL while it writes, at {len(MOMENTS[name])} moments", start="undisturbed")(
        _killed_while_it_writes(name)
    )


def _clone(project: Project) -> tuple[Project, tuple[str, ...], dict]:
    """Return a git clone, the command of a demo with the small parameters, and the hashes of its outputs."""
    code = (
        "import sys; from benchmarks.fault_injection.project import SMALL; from pipeline import stage; "
        "from pipeline.tools import demo; demo.OVERRIDES = SMALL; sys.argv = ['demo.py']; stage.run(demo.main)"
    )
    return project.clone(), (sys.executable, "-c", code), hashes(project.folder)


def _same(folder: Path, wanted: dict) -> None:
    if hashes(folder) != wanted:
        raise Failed(f"other bytes in {folder.name}/")


@fault("make demo: SIGKILL, again, and a second one beside it", start="undisturbed", outputs=False)
def _(project):
    clone, demo, wanted = _clone(project)
    lock = clone.folder / layout.DEMO / layout.DVC_LOCK
    for kind in (signal.SIGKILL, None):
        process = clone.start(*demo)
        # The first stage is done.
        wait_for(lambda: lock.exists(), process)
        if kind is not None:
            os.killpg(process.pid, kind)
            process.wait()
            wait_for(lambda group=process.pid: not alive(group))
            lock.unlink()
    said = clone.refused(*demo, says="another run of this stage is still going in this folder")
    if process.wait():
        raise Failed("the first one failed")
    _same(clone.folder / layout.DEMO, wanted)
    return f"The second one: {said}. The one after the kill ends with the same outputs."


@fault("make demo killed, its stage lives on", start="undisturbed", outputs=False)
def _(project):
    clone, demo, wanted = _clone(project)
    said = _beside_an_orphan(clone, *demo, says="still going")
    _same(clone.folder / layout.DEMO, wanted)
    return f"Another one at once: {said}. The orphan ends with the same outputs."


@fault("make demo beside `dvc repro`", start="undisturbed", outputs=False)
def _(project):
    clone, demo, wanted = _clone(project)
    clone.set(SMALL)
    process = clone.start("dvc", "repro")
    wait_for(lambda: clone.epochs_kept() >= 1, process)
    if clone.run(*demo):
        raise Failed(f"the demo failed: {clone.error()}")
    if process.wait():
        raise Failed("dvc repro failed")
    for folder in (clone.folder, clone.folder / layout.DEMO):
        _same(folder, wanted)
    return "Both end well, with the same outputs each."


@fault("make setup: SIGKILL while it empties .venv, and while it installs", start="fresh", outputs=False)
def _(project):
    clone, asked = project.clone(), []
    # Of other packages, as on another branch.
    stamp = clone.folder / ".venv/.installed-before"
    stamp.parent.mkdir()

    class Index(BaseHTTPRequestHandler):
        def handle(self):
            asked.append(self)
            time.sleep(600)

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Index)) as port:
        clone.environment |= {"PIP_INDEX_URL": f"http://127.0.0.1:{port}/", "PIP_CONFIG_FILE": os.devnull}
        for moment in (lambda: not stamp.exists(), lambda: asked):
            stamp.touch()
            process = clone.start("make", "setup", f"PYTHON={sys.executable}")
            wait_for(moment, process)
            if process.poll() is not None:
                raise Failed(f"ended: {clone.error()}")
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            wait_for(lambda group=process.pid: not alive(group))
            if left := list(stamp.parent.glob(".installed-*")):
                raise Failed(f"what is left counts as ready: {left[0].name}")
    return "What is left does not count as ready; the next make sets up again from the start."


def _a_day_ahead(folder: Path) -> None:
    """Give all files a time of a day later: so they look after the clock was set back."""
    for path in folder.rglob("*"):
        if not path.is_symlink():
            now = path.stat().st_mtime_ns + 24 * 3600 * 10**9
            os.utime(path, ns=(now, now))


@fault("the clock goes back by a day: in a training that is killed, and after it")
def _(project):
    project.interrupt(lambda: project.epochs_kept() >= 3, signal.SIGKILL)
    _a_day_ahead(project.folder)
    project.repro("train", says="going on after epoch")
    _a_day_ahead(project.folder)
    project.repro(says="Running stage 'evaluate'")
    return "The training goes on, and the later stages run."


@fault("the clock goes back by a day: then a parameter and a byte of the data change", start="undisturbed")
def _(project):
    _a_day_ahead(project.folder)
    if "Running stage" in project.repro():
        raise Failed("ran stages of which nothing changed")
    dpi = params.load(project.folder / layout.PARAMS).visualize.dpi
    project.set({"visualize.dpi": dpi + 1})
    project.repro(says="Running stage 'visualize'")
    project.set({"visualize.dpi": dpi})
    image = min((project.folder / layout.PROCESSED).rglob("*.png"))
    content = bytearray(image.read_bytes())
    content[-20] ^= 1
    before = image.stat().st_mtime_ns - 2 * 24 * 3600 * 10**9
    # In place, and not in the cache that it may be a link to.
    image.unlink()
    image.write_bytes(content)
    os.utime(image, ns=(before, before))
    project.repro()
    if image.read_bytes() == content:
        raise Failed("a changed byte was not noticed")
    return "Nothing runs because of the time alone; both changes are noticed, and the data is brought back."
