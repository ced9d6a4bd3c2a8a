"""The light installation: what `pip install .` brings is enough to find nuclei, and small."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions

import cv2
import numpy as np
import pytest
from packaging.requirements import Requirement

from pipeline.dataset import synthetic
from tests import ROOT
from tests.guests import UNREACHABLE

# What it takes to predict must not bring these along by accident.
HEAVY = {"tensorflow", "keras", "dvc", "mlflow", "pandas", "matplotlib", "onnx", "pyarrow"}


def base():
    """Return the names of all distributions that the base dependencies of nuclei-unet need."""
    found, open_ = set(), ["nuclei-unet"]
    while open_:
        for text in distribution(open_.pop()).requires or ():
            requirement = Requirement(text)
            name = re.sub(r"[-_.]+", "-", requirement.name).lower()
            if name not in found and (not requirement.marker or requirement.marker.evaluate({"extra": ""})):
                found.add(name)
                open_.append(name)
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number, (_, image, _) in enumerate(synthetic.held_out_images(2, 2018)):
        cv2.imwrite(str(folder / f"{number}.png"), image[..., ::-1])
    return folder


def test_prediction_imports_base_dependencies_alone(images, tmp_path):
    """In our own environment, but as if nothing else was installed."""
    allowed = base()
    assert not allowed & HEAVY and "onnxruntime" in allowed
    owners = packages_distributions()
    blocked = sorted(
        module
        for module, names in owners.items()
        if not {re.sub(r"[-_.]+", "-", name).lower() for name in names} & (allowed | {"nuclei-unet"})
    )
    assert set(blocked) >= HEAVY
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in {blocked!r} else find(name, *more)
from nuclei_unet.commands.main import main
main(["predict", {str(images)!r}, {str(tmp_path / "out")!r}, "--write", "geojson,rois,overlay,coco,rle"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert json.loads((tmp_path / "out/run.json").read_text())["images"][0]["count"] > 0


@pytest.mark.slow
def test_a_wheel_in_an_empty_environment(images, tmp_path):
    copy = tmp_path / "source"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        if name.startswith(("nuclei_unet/", "pipeline/")) or name in ("pyproject.toml", "README.md", "LICENSE"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [tmp_path / "venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, copy], capture_output=True, text=True)
    if done.returncode:
        offline = re.search(UNREACHABLE, done.stderr) and not os.environ.get("CI")
        (pytest.skip if offline else pytest.fail)(f"cannot be installed: {done.stderr.strip()[-500:]}")
    assert sum(path.lstat().st_size for path in (tmp_path / "venv").rglob("*")) < 700e6
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    command = [tmp_path / "venv/bin/nuclei-unet", "predict", images, "out"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert re.fullmatch(r"2 images, \d+ nuclei in out\nopen out/summary.html.*\n", done.stdout)
    run = json.loads((tmp_path / "out/run.json").read_text())
    assert "tensorflow" not in run["versions"] and run["model"]["name"] == "pretrained"
    labels = cv2.imread(str(tmp_path / "out/0_labels.tif"), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16 and labels.max() == run["images"][0]["count"]
