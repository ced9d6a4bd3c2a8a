"""Disks without room, little memory, damaged files, parameters that ruin a training."""

import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from benchmarks.fault_injection.project import Failed, Project, fault
from pipeline import layout, params


@contextmanager
def small_disk(folder: Path, free: int):
    """Let a folder lie on a disk of its own with so many bytes of free space; what it held is there, too."""
    kept = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-kept")))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise Failed("not tried: no disk can be mounted here (run it as root)") from None
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        (folder / "ballast").write_bytes(bytes(shutil.disk_usage(folder).free - free))
        yield
    finally:
        subprocess.run(["umount", folder], check=True)
        shutil.rmtree(kept)


def _full_disk(stage: str, folder: str, free: int):
    def provoke(project: Project) -> str:
        place = project.folder / folder
        with small_disk(place, free):
            before = sorted(place.rglob("*"))
            says = rf"^error: {stage}: No space left on device \(.*MB.*\): {folder}/\S+; fix this and run it again$"
            said = project.refused(sys.executable, "-m", f"pipeline.{stage}", says=says)
            if added := set(place.rglob("*")) - set(before):
                raise Failed(f"half-written: {sorted(path.name for path in added)}")
        project.repro("--force", "--single-item", stage)
        project.repro()
        return f"{said}. With room `dvc repro` succeeds."

    return provoke


for stage, folder, free in (
    ("download", "data", 200_000),
    ("preprocess", "data", 200_000),
    ("train", "models", 100_000),
    ("evaluate", "models", 20_000),
    ("visualize", "reports", 20_000),
):
    fault(f"{stage}: the disk is full", start="undisturbed")(_full_disk(stage, folder, free))


@fault("train: out of memory (address space limited)")
def _(project):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (4 * 10**9, 4 * 10**9))}
    if project.run("dvc", "repro", **limit) == 0:
        raise Failed("was not noticed")
    said = project.error()
    project.repro()
    return f"{said[:160]}. With memory `dvc repro` succeeds."


def _cut_short(stage: str, pattern: str):
    def provoke(project: Project) -> str:
        project.repro("train")
        path = next(project.folder.glob(pattern))
        data = path.read_bytes()
        path.unlink()  # it may be a link to DVC's cache
        path.write_bytes(data[: len(data) // 2])
        said = project.refused(sys.executable, "-m", f"pipeline.{stage}", says=path.name)
        project.repro()
        return f"{re.sub(r'[0-9a-f]{60,}', '<id>', said)}. `dvc repro` brings it back."

    return provoke


fault("evaluate: the model file is cut short")(_cut_short("evaluate", str(layout.TRAINED)))
fault("train: an image of data/processed/ is cut short")(_cut_short("train", f"{layout.PROCESSED}/images/*.png"))


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
