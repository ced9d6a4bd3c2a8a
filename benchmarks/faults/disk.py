"""Disks without room or rights, little memory, files that were damaged."""

import re
import resource
import sys

from benchmarks.faults.project import Failed, fault, obey_file_modes
from pipeline import layout


@fault("train: no room for the files (limit of 1 MB a file)")
def _(project):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))}
    said = project.refused("dvc", "repro", says="error: train: File too large", **limit)
    project.repro()
    return f"{said}. With room `dvc repro` succeeds."


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
