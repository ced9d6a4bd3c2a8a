"""Processes that are killed, or run at the same time."""

import os
import random
import re
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from benchmarks.faults.project import Failed, Project, alive, fault, serving, wait_for
from pipeline import layout, params


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
