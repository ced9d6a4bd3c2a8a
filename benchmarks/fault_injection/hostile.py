"""Archives, images and models that mean harm, in every command that opens them."""

import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.fault_injection import hostile_models
from benchmarks.fault_injection.project import Failed, fault
from benchmarks.fault_injection.served import claims
from nuclei_unet.prediction.models import PRETRAINED
from pipeline import layout
from pipeline.tracking.models import example

PYTHON = (sys.executable, "-m")
BOMB = bytes(2**28 + 1)


def image(path: Path) -> None:
    """Write a small image with a nucleus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((64, 64), 20, np.uint8)
    cv2.circle(pixels, (30, 30), 10, 200, -1)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


@fault("download: archives with names outside and bombs", start="fresh", outputs=False)
def _(project):
    project.set({"download.source": "bbbc038"})
    folder = project.folder / "archives"
    folder.mkdir()
    project.environment["DSB2018_ARCHIVES"] = str(folder)
    (folder / "stage1_solution.csv").write_text("ImageId,EncodedPixels,Height,Width,Usage\nt,1 1,3,2,Public\n")
    members = {"../harm.png": example(), "/tmp/harm.png": example(), "a/images/a.png": BOMB, "harm.sh": b"touch harm"}
    for member, content in members.items():
        for name in ("stage1_train.zip", "stage1_test.zip"):
            with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(member, content)
        said = project.refused(*PYTHON, "pipeline.download", says=r"^error: download: .*stage1_\w+\.zip")
        if list(project.folder.rglob("harm*")) or list((project.folder / layout.RAW).glob("*.zip")):
            raise Failed(f"{member}: was unpacked")
    return f"{len(members)} archives: refused in one line, nothing was unpacked. {said}."


@fault("nuclei-unet predict: images that are cut short, claim to be huge, or are none", start="fresh", outputs=False)
def _(project):
    folder = project.folder / "images"
    image(folder / "good.png")
    files = {"cut.png": example()[:-20], "huge.png": claims(2**20), "none.tif": b"no image", "empty.jpg": b"",
             "\x1b]0;pwned\x07\n.png": b"no image", "zip.ome.tif": b"II*\0" + b"\xff" * 64}  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    command = (*PYTHON, "nuclei_unet", "predict", "images", "results", "--model", str(PRETRAINED))
    if project.run(*command) != 1:
        raise Failed(f"broken images were not noticed: {project.error()}")
    if "\x1b" in project.log() or "Traceback" in project.log():
        raise Failed("a name reaches the terminal as it is, or no clear line")
    if not (project.folder / "results/good_labels.tif").exists():
        raise Failed("the good one was not done")
    return f"{len(files)} files: one line each; the good one beside them is done."


@fault("models of others: other files, terabytes, unknown operators", start="fresh", outputs=False)
def _(project):
    folder = project.folder / "models-of-others"
    says = hostile_models.write(PRETRAINED, folder)
    for name in ("images", "labels"):
        image(project.folder / name / "a.png")
    # Relative names of other files would be found from here.
    shutil.copy(PRETRAINED, project.folder / "good.onnx")
    (folder / "own.keras").write_bytes(b"PK")
    says["own.keras"] = r"\.keras"
    for name, wanted in says.items():
        model = str(folder / name)
        for command in (("predict", "images", "results", "--model", model), ("info", model)):
            project.refused(*PYTHON, "nuclei_unet", *command, says=f"^error: .*{wanted}")
    command = ("adapt", "images", "labels", "--out", "adapted.onnx", "--model", str(folder / "beside.onnx"))
    project.refused(*PYTHON, "nuclei_unet", *command, says="^error: .*beside.onnx")
    if made := [name for name in ("adapted.onnx", "results/a_labels.tif") if (project.folder / name).exists()]:
        raise Failed(f"wrote {made}")
    return f"{len(says)} files, in predict, info and adapt: one clear line each; no other file was read."
