"""Disks without room or rights, little memory, files that were damaged."""

import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from benchmarks.fault_injection.project import Failed, Project, fault, obey_file_modes
from pipeline import layout


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
            command = (sys.executable, "-m", f"pipeline.{stage}")
            says = rf"^error: {stage}: No space left on device \(.*MB.*\): {folder}/\S+; fix this and run it again$"
            said = project.refused(*command, says=says)
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
