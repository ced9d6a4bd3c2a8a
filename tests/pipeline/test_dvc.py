"""The pipeline as DVC runs it: in a copy of the project, on a tiny synthetic data set."""

import base64
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest
import requests
from ruamel.yaml import YAML

from benchmarks.fault_injection.project import wait_for
from nuclei_unet.prediction.models import describe
from pipeline import layout, params
from pipeline.process import OUTSIDE, environment, free_port, is_served
from pipeline.report.scores import main_scores
from pipeline.tools import verify
from pipeline.tools.project import copy_project
from pipeline.tracking.names import curve
from tests import ROOT
from tests.test_layers import imported

STAGES = ("download", "preprocess", "train", "evaluate", "visualize")
# How files are written, checked and mirrored, and where the work is done; none of them shapes what an output holds.
NO_DEPENDENCY = {
    *("nuclei_unet.errors", "nuclei_unet.files", "nuclei_unet.quiet", "nuclei_unet.sample", "nuclei_unet.settings"),
    *("nuclei_unet.batch.pool", "nuclei_unet.batch.dask_pool", "nuclei_unet.training.resume", "pipeline.git"),
    *("pipeline.layout", "pipeline.machine", "pipeline.params", "pipeline.process", "pipeline.stage"),
    *("pipeline.tracking.client", "pipeline.tracking.sync"),
}
TINY = {
    "download.source": "synthetic",
    "download.synthetic.train": 16,
    "download.synthetic.test": 2,
    "preprocess.validation_fraction": 0.4,
    "train.precision": "float32",
    "train.crop_size": 64,
    "train.batch_size": 2,
    "train.epochs": 2,
    "train.steps_per_epoch": 3,
    "train.model.encoder": "none",
    "train.model.filters": [4, 8],
    "train.model.dropout": [0, 0.1],
    "evaluate.foreground_threshold": 0.5,
    "evaluate.augmentations": [[1, 0]],
    "visualize.examples": 1,
    "visualize.dpi": 50,
}


def run(folder: Path, *command: str, **variables: str) -> str:
    """Run a command with this Python first on PATH; its output, or a failing test that shows it."""
    variables = environment(without=OUTSIDE, **variables)
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def set_params(folder: Path, values: dict) -> None:
    file = folder / "params.yaml"
    file.write_text(params.override(file.read_text(), values))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A git repository with the project's files, in which `dvc repro` has run once and was committed."""
    folder = tmp_path_factory.mktemp("project")
    copy_project(ROOT, folder)
    (folder / ".dvc/config.local").unlink()
    set_params(folder, TINY)
    run(folder, "git", "init", "-q", "-b", "main")
    run(folder, "git", "config", "user.email", "tests@example.org")
    run(folder, "git", "config", "user.name", "tests")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-q", "-m", "code")
    (folder / "first_repro.log").write_text(run(folder, "dvc", "repro"))
    (folder / ".git/info/exclude").write_text("first_repro.log\n")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "-q", "-m", "first results")
    return folder


def test_repro_runs_all_stages_and_writes_every_output(project):
    log = (project / "first_repro.log").read_text()
    assert re.findall(r"Running stage '(\w+)'", log) == list(STAGES)
    history = pd.read_csv(project / "reports/history.csv")
    assert list(history.epoch) == [1, 2]
    assert {"loss", "val_loss", "val_foreground_iou", "val_foreground_dice", "learning_rate"} <= set(history)
    scores = json.loads((project / "reports/scores.json").read_text())
    assert json.loads((project / "reports/metrics.json").read_text()) == main_scores(scores)
    assert scores["test"]["n_images"] == 2
    assert len(pd.read_csv(project / "reports/per_image.csv")) == 2 + scores["validation"]["n_images"]
    assert len(list((project / "reports/figures").glob("*.png"))) == 7
    assert "synthetic" in (project / "reports/report.html").read_text().lower()
    # No start-up lines of TensorFlow.
    assert not re.search("oneDNN|cuda|absl|cpu_feature_guard", log, re.IGNORECASE)


def test_repro_leaves_git_clean_but_for_its_results(project):
    assert run(project, "git", "status", "--porcelain") == ""
    tracked = run(project, "git", "ls-files", "data", "models", "reports").split()
    assert not [name for name in tracked if name.endswith((".png", ".zip", ".keras", ".onnx", ".html"))]
    assert {"reports/metrics.json", "reports/history.csv", "reports/data_audit.json"} <= set(tracked)


def test_second_repro_runs_nothing(project):
    log = run(project, "dvc", "repro")
    assert "Running stage" not in log and "up to date" in log


@pytest.mark.slow
def test_metrics_diff_shows_what_a_change_did(project):
    run(project, "git", "checkout", "-q", "-b", "other")
    set_params(project, {"evaluate.foreground_threshold": 0.2})
    assert re.findall(r"Running stage '(\w+)'", run(project, "dvc", "repro")) == ["evaluate", "visualize"]
    table = run(project, "dvc", "metrics", "diff", "main")
    assert re.search(r"metrics\.json\s+test\.iou\s+[\d.]+\s+[\d.]+\s+-?[\d.]+", table)
    assert len(table.splitlines()) <= 7
    assert re.search(r"evaluate\.foreground_threshold\s+0\.5\s+0\.2", run(project, "dvc", "params", "diff", "main"))
    run(project, "dvc", "plots", "diff", "main")
    said = run(project, sys.executable, "-m", "pipeline.tools.compare", "main")
    assert re.search(r"Against main the DSB score of 2 test images changes by [+-]0\.\d{3} \(95% interval", said)
    page = (project / "reports/compare.html").read_text()
    assert "evaluate.foreground_threshold" in page and not re.search(r"(src|href)=.?(http|/)", page)
    assert page.count("data:image/png;base64,") >= 1
    run(project, "git", "checkout", "-q", "-f", "main")
    # Back on main DVC brings everything from its cache, without training again.
    assert "Running stage" not in run(project, "dvc", "checkout") + run(project, "dvc", "repro")


@pytest.mark.slow
def test_two_branches_become_one(project, tmp_path):
    folder = shutil.copytree(project, tmp_path / "project", symlinks=True)

    def merge(branch):
        done = subprocess.run(["git", "merge", branch], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 1 and "CONFLICT" in done.stdout

    def resolve():
        command = [sys.executable, "-m", "pipeline.tools.resolve"]
        variables = environment(without=OUTSIDE)
        return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)

    assert resolve().stderr == "error: resolve: there is nothing to resolve; `git merge BRANCH` comes first\n"
    changes = {"c": {"evaluate.min_area": 9}, "b": {"evaluate.prominence": 0.3}, "a": {"evaluate.min_area": 5}}
    for branch, values in changes.items():
        run(folder, "git", "switch", "-q", "-c", branch, "main")
        set_params(folder, values)
        if branch != "c":
            run(folder, "dvc", "repro")
        run(folder, "git", "commit", "-q", "-am", branch)
    # Other parameters: only results are in conflict.
    merge("b")
    assert resolve().returncode == 0
    run(folder, "git", "commit", "-q", "--no-edit")
    settings = params.load(folder / layout.PARAMS)
    assert (settings.evaluate.min_area, settings.evaluate.prominence) == (5, 0.3)
    assert "up to date" in run(folder, "dvc", "repro") and not run(folder, "git", "status", "--porcelain")
    # The same one: somebody has to choose, and what was chosen has results already.
    merge("c")
    assert resolve().stderr == "error: resolve: merge params.yaml by hand, `git add` it, then run this again\n"
    run(folder, "git", "checkout", "--ours", "params.yaml")
    run(folder, "git", "add", "params.yaml")
    done = resolve()
    assert done.returncode == 0 and "Running stage" not in done.stdout
    run(folder, "git", "commit", "-q", "--no-edit")
    assert not run(folder, "git", "status", "--porcelain")


def test_mlflow_has_one_finished_run_with_everything(project):
    mlflow.set_tracking_uri(f"sqlite:///{project / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("nuclei-unet")
    first, *_ = client.search_runs([experiment.experiment_id], "params.`evaluate.foreground_threshold` = '0.5'")
    assert first.info.status == "FINISHED"
    assert first.data.params["train.epochs"] == "2"
    scores = json.loads(run(project, "git", "show", "main:reports/scores.json"))
    assert first.data.metrics["test/instance/dsb_score"] == scores["test"]["instance"]["dsb_score"]
    assert [m.step for m in client.get_metric_history(first.info.run_id, curve("val_foreground_iou"))] == [1, 2]
    seconds = {f"seconds.{stage}" for stage in ("train", "evaluate", "visualize")}
    assert {"model_sha256", "precision"} | seconds <= set(first.data.tags)
    artifacts = {item.path for item in client.list_artifacts(first.info.run_id)}
    assert {"scores.json", "history.csv", "per_image.csv", "report.html", "figures"} <= artifacts
    assert first.inputs.dataset_inputs[0].dataset.name == "synthetic"
    # The registered copy names the commit; the file in models/ cannot.
    registered = Path(mlflow.artifacts.download_artifacts("models:/nuclei-unet/1"), "artifacts/model.onnx")
    commit = run(project, "git", "rev-list", "--max-parents=0", "main").strip()
    own, _, _ = describe(project / layout.MODEL)
    assert describe(registered)[0] == own.but(commit=commit) and own.commit is None
    mlflow.set_tracking_uri(None)


@pytest.mark.slow
def test_the_champion_answers_requests(project, tmp_path):
    port = free_port()
    variables = environment(MLFLOW_TRACKING_URI=f"sqlite:///{project / layout.STORE}")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/nuclei-unet@champion"]
    with (project / ".git/serve.log").open("w") as log:
        # Far from the project: the model brings all that it needs.
        options = {"cwd": tmp_path, "stdout": log, "stderr": log, "start_new_session": True}
        server = subprocess.Popen([*command, "--env-manager", "local", "--port", str(port)], env=variables, **options)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: is_served(port), server)
        assert server.poll() is None, (project / ".git/serve.log").read_text()
        requests.get(f"{address}/ping", timeout=60).raise_for_status()
        picture = base64.b64encode(next((project / "data/processed/images").glob("*.png")).read_bytes()).decode()
        body = {"dataframe_records": [{"image": picture}, {"image": np.eye(9).tolist()}]}
        answer = requests.post(f"{address}/invocations", json=body, timeout=60)
        assert answer.ok, answer.text
        first, second = answer.json()["predictions"]
        labels = cv2.imdecode(np.frombuffer(base64.b64decode(first["labels"]), np.uint8), cv2.IMREAD_UNCHANGED)
        assert labels.max() == first["count"] == len(first["measurements"]) and labels.size > 1000
        assert second["count"] == len(second["measurements"])
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.fixture(scope="module")
def screenshots():
    """Return docs/screenshots.py, which knows what each page has to show."""
    spec = importlib.util.spec_from_file_location("screenshots", ROOT / "docs/screenshots.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def chromium(screenshots):
    """Return a browser, or skip; on CI there has to be one."""
    if not any(map(shutil.which, screenshots.BROWSERS)):
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no Chromium or Chrome on this machine; install one (apt install chromium)")
    with screenshots.browser() as browser:
        yield browser


@pytest.mark.browser
def test_the_ui_shows_run_curves_files_and_model(project, screenshots, chromium):
    page = chromium.new_page(viewport=screenshots.SIZE)
    with screenshots.user_interface(project, environment(without=("MLFLOW",))) as (server, scores):
        # The first one was trained here; later ones took the model from DVC's cache, without pictures of its training.
        run_page = screenshots.run_page(page, scores, row=-1)
        for name, shown in screenshots.mlflow_pages(server, scores, run_page).items():
            screenshots.visit(page, shown)
            if name == "ui-curves":
                # Before the single scores.
                titles = ("curves", "curves/more", "test/instance")
                tops = [page.get_by_text(title, exact=True).first.bounding_box()["y"] for title in titles]
                assert tops == sorted(tops)
        screenshots.visit(page, screenshots.Shown(run_page, ("nuclei",), press="Show more"))
        # The description's picture of examples came from the server.
        assert 100 < page.locator('img[src*="preview.png"]').evaluate("image => image.naturalWidth") <= 600
        # What stands beside the description is not pushed out of the window.
        assert page.get_by_text("Registered models").first.bounding_box()["x"] < screenshots.SIZE["width"]


@pytest.mark.browser
def test_the_reports_need_no_network_and_no_console(project, screenshots, chromium):
    run(project, sys.executable, "-m", "pipeline.tools.compare", "main")
    page = chromium.new_page(viewport=screenshots.SIZE)
    faults, asked = [], []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    reports = screenshots.reports(project / "reports")
    for shown in reports.values():
        screenshots.visit(page, shown)
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 50)")
        # Nothing is cut off on a phone: no sideways scrolling.
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.set_viewport_size(screenshots.SIZE)
    assert not faults
    assert {url for url in asked if not url.startswith("data:")} == {shown.address for shown in reports.values()}


@pytest.mark.browser
def test_plots_need_no_network(project, screenshots, chromium):
    run(project, sys.executable, "-m", "pipeline.tools.plots")
    run(project, "dvc", "plots", "diff", "main")
    page = chromium.new_page(viewport=screenshots.SIZE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((project / "dvc_plots/index.html").as_uri())
    # Loss, IoU and average precision are drawn by Vega; figures are pictures.
    page.wait_for_function("document.querySelectorAll('canvas, svg.marks').length >= 3")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 50)")
    assert asked and all(url.startswith(("file://", "data:")) for url in asked)


@pytest.mark.slow
def test_an_experiment_in_a_copy_logs_to_the_projects_store(project):
    log = run(project, "dvc", "exp", "run", "--temp", "--name", "lower", "-S", "evaluate.foreground_threshold=0.3")
    assert re.findall(r"Running stage '(\w+)'", log) == ["evaluate", "visualize"]
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("nuclei-unet")
    (found,) = client.search_runs([experiment.experiment_id], "params.`evaluate.foreground_threshold` = '0.3'")
    assert found.info.run_name == "lower"
    assert found.data.tags["changed"] == "evaluate.foreground_threshold=0.3"
    assert found.data.tags["git_branch"] == "main"
    # As `make experiments` shows it, and `make compare` takes it.
    table = run(project, sys.executable, "-m", "pipeline.tools.experiments")
    assert re.search(r"\nlower +(\d\.\d{3} +){6}evaluate\.foreground_threshold=0\.3\n", table), table
    run(project, sys.executable, "-m", "pipeline.tools.compare", "lower")


@pytest.mark.slow
def test_a_clone_elsewhere_makes_the_same_bits(project, tmp_path):
    folder = tmp_path / "another folder"
    folder.mkdir()
    one_core = ["taskset", "-c", "0"] if shutil.which("taskset") else []
    elsewhere = {"TMPDIR": str(folder), "TZ": "Pacific/Auckland", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    log = run(project, *one_core, sys.executable, "-m", "pipeline.tools.verify", "main", **elsewhere)
    outputs = verify.hashes((project / layout.DVC_LOCK).read_text())
    assert f"{len(outputs)} of {len(outputs)} outputs are identical" in log, log
    # TensorFlow and ONNX Runtime leave a file of their own each in the folder for temporary files.
    assert len(outputs) == 14 and {path.name for path in folder.iterdir()} <= {"__pycache__", ".ses"}


def file_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def imports(module: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the modules of this project that a module needs, itself included, as far as they shape an output."""
    found = {module, *(name for name in imported(file_of(module).read_text()) if file_of(name).is_file())}
    for other in found - seen - NO_DEPENDENCY - {module}:
        found |= imports(other, seen | found)
    return found - NO_DEPENDENCY


@pytest.mark.parametrize("name", STAGES)
def test_dvc_yaml_names_every_module_that_shapes_an_output(name):
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    named = {dep.removesuffix(".py").replace("/", ".") for dep in stages[name]["deps"] if dep.endswith(".py")}
    assert named == imports(f"pipeline.{name}")
