"""Models that mean harm, in every command that opens them."""

import shutil
import sys

import cv2
import numpy as np

from benchmarks.fault_injection import hostile_models
from benchmarks.fault_injection.project import Failed, fault
from nuclei_unet.prediction.models import PRETRAINED


@fault("models of others: other files, terabytes, unknown operators", start="fresh", outputs=False)
def _(project):
    folder = project.folder / "models-of-others"
    says = hostile_models.write(PRETRAINED, folder)
    nucleus = cv2.circle(np.full((64, 64), 20, np.uint8), (30, 30), 10, 200, -1)
    for name in ("images", "labels"):
        (project.folder / name).mkdir()
        cv2.imwrite(str(project.folder / name / "a.png"), nucleus)
    # Relative names of other files would be found from here.
    shutil.copy(PRETRAINED, project.folder / "good.onnx")
    (folder / "own.keras").write_bytes(b"PK")
    says["own.keras"] = r"\.keras"
    program = sys.executable, "-m", "nuclei_unet"
    for name, wanted in says.items():
        model = str(folder / name)
        for command in (("predict", "images", "results", "--model", model), ("info", model)):
            project.refused(*program, *command, says=f"^error: .*{wanted}")
    command = ("adapt", "images", "labels", "--out", "adapted.onnx", "--model", str(folder / "beside.onnx"))
    project.refused(*program, *command, says="^error: .*beside.onnx")
    if made := [name for name in ("adapted.onnx", "results/a_labels.tif") if (project.folder / name).exists()]:
        raise Failed(f"wrote {made}")
    return f"{len(says)} files, in predict, info and adapt: one clear line each; no other file was read."
