"""Processes that are killed, or run at the same time."""

import os
import random
import re
import signal
import time

from benchmarks.fault_injection.project import Failed, Project, alive, fault, wait_for


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


def _killed_again_and_again(stage: str, times: int, longest: float):
    """Kill `dvc repro` at random moments, from the start of Python to `longest` seconds later."""

    def provoke(project: Project) -> str:
        moments = random.Random(2018)
        for _ in range(times):
            process = project.start("dvc", "repro", stage)
            time.sleep(moments.uniform(1, longest))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            wait_for(lambda group=process.pid: not alive(group))
        project.repro()
        return "`dvc repro` went on each time; nothing half-written was taken for a whole file."

    return provoke


fault("train, evaluate and visualize: SIGKILL at sixteen random moments")(_killed_again_and_again("visualize", 16, 25))
fault("download and preprocess: SIGKILL at ten random moments", start="fresh")(
    _killed_again_and_again("preprocess", 10, 6)
)


@fault("dvc killed, its stage lives on")
def _(project):
    process = project.start("dvc", "repro")
    first = project.last_log
    wait_for(lambda: project.epochs_kept() >= 2, process)
    process.kill()
    process.wait()
    # Paused, so that it is certainly still there.
    os.killpg(process.pid, signal.SIGSTOP)
    said = project.refused("dvc", "repro", says="another run of this stage is still going")
    os.killpg(process.pid, signal.SIGCONT)
    wait_for(lambda: not alive(process.pid), seconds=600)
    if "Traceback" in first.read_text():
        raise Failed("the orphan was disturbed")
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
