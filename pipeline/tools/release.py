"""Put the evaluated model into the package, as the one that `nuclei-unet predict` uses when none is named.

    python -m pipeline.tools.release

Copies models/model.onnx to nuclei_unet/pretrained/model.onnx, with the commit that it is from in its metadata.
"""

import hashlib
from pathlib import Path

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.prediction import models
from pipeline import git, layout
from pipeline.report.results import existing
from pipeline.stage import run


def main() -> None:
    """Write nuclei_unet/pretrained/model.onnx."""
    with fresh_file(models.PRETRAINED) as path:
        copy_model(path)
    print(f"wrote {models.PRETRAINED} ({models.PRETRAINED.stat().st_size / 1e6:.1f} MB); commit it")


def copy_model(target: Path) -> None:
    """Copy models/model.onnx; the copy names its commit."""
    from nuclei_unet.network import onnx_file

    metadata = models.describe(existing(layout.MODEL, "evaluate"))[0]
    onnx_file.copy(layout.MODEL, target, metadata.but(commit=commit()))


def commit() -> str:
    """Return the commit whose dvc.lock first named models/model.onnx as it is. Raises InputError if none does."""
    digest = hashlib.md5(layout.MODEL.read_bytes(), usedforsecurity=False).hexdigest()
    commits = git.git("log", "--reverse", "--format=%H", f"-S{digest}", "--", str(layout.DVC_LOCK)).split()
    if not commits:
        raise InputError(f"{layout.MODEL}: no commit's {layout.DVC_LOCK} has it; commit what `dvc repro` wrote first")
    return commits[0]


if __name__ == "__main__":
    run(main, tensorflow=True)
