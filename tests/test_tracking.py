"""The mirror in MLflow: a run that all stages find, and a pipeline that does not care whether MLflow is there."""

import base64
import threading
import time
from pathlib import Path

import cv2
import keras
import mlflow
import numpy as np
import pandas as pd
import pytest

from benchmarks.faults import free_port, mlflow_server
from nuclei_unet.errors import InputError
from nuclei_unet.network import model_file, unet
from pipeline import params
from pipeline.dataset import processed as dataset
from pipeline.tracking import names
from pipeline.tracking import run as tracking
from pipeline.tracking.machine_use import MachineUse
from pipeline.tracking.models import _example
from pipeline.tracking.names import _run_name, _stage_tags
from pipeline.tracking.store import pages


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The files that tracking mirrors, in an empty folder that is made the working directory."""
    settings = params.load()
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    for folder in ("data/processed", "models", "reports"):
        (tmp_path / folder).mkdir(parents=True)
    row = ("a", "train", "grey-tissue", 0, 8, 8, 1)
    pd.DataFrame([row], columns=dataset.MANIFEST_COLUMNS).to_csv("data/processed/manifest.csv", index=False)
    yield settings
    mlflow.set_tracking_uri(None)


def write_results(settings, seed=1):
    keras.utils.set_random_seed(seed)
    small = settings.train.model.model_copy(update={"filters": (2, 4), "dropout": (0.0, 0.0)})
    model_file.save(unet.build(1, settings.train.targets, small), model_file.MODEL)
    pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.0]}).to_csv("reports/history.csv", index=False)
    pd.DataFrame({"image_id": ["a"], "dsb_score": [0.5]}).to_csv("reports/per_image.csv", index=False)


def small():
    """Write and return the parameters of the model that `write_results` makes."""
    values = {"train.model.filters": [2, 4], "train.model.dropout": [0, 0], "evaluate.scales": [1]}
    Path("params.yaml").write_text(params.override((Path(__file__).parents[1] / "params.yaml").read_text(), values))
    return params.load()


def train(settings, key="train-1"):
    with tracking.training_run(settings, "float32", key) as log:
        log.epoch(1, {"loss": 2.0})
        log.epoch(2, {"loss": 1.0})
        write_results(settings)


def stopped(settings, error, key="train-1"):
    """Train one epoch and stop."""
    with pytest.raises(error), tracking.training_run(settings, "float32", key) as log:
        log.epoch(1, {"loss": 2.0})
        raise error


def curve(run, store="mlflow.db"):
    return [(m.step, m.value) for m in client_of(store).get_metric_history(run.info.run_id, "loss")]


def client_of(store):
    # The full path: MLflow keeps one connection for each address, whatever the working directory.
    return mlflow.MlflowClient(f"sqlite:///{Path(store).absolute()}")


def runs(store="mlflow.db"):
    client = client_of(store)
    return client.search_runs([client.get_experiment_by_name("nuclei-unet").experiment_id])


def test_later_stages_find_the_run_of_the_model(project):
    train(project)
    assert tracking.log_stage(project, {"test/pixel/iou": 0.8}, [tracking.HISTORY], "evaluate", 3.2)
    assert tracking.log_stage(project, {}, [], "visualize", 1.0)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.metrics.pop("train_seconds") < 60
    assert run.data.metrics == {"loss": 1.0, "test/pixel/iou": 0.8}
    assert "| pixel IoU | nan | 0.800 |" in run.data.tags["mlflow.note.content"]
    assert {"machine", "precision", "params_sha256"} <= set(run.data.tags)
    table = client_of("mlflow.db").load_table(run.info.experiment_id, "per_image.json", [run.info.run_id])
    assert table.dsb_score.tolist() == [0.5]
    assert run.data.params["train.model.filters"] == "(32, 64, 128, 192)"
    assert run.data.tags["seconds.evaluate"] == "3"
    loaded = mlflow.keras.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    assert sorted(loaded.output_names) == sorted(project.train.targets)


def test_the_description_shows_examples_once_they_are_drawn(project):
    train(project)
    Path("figures").mkdir()
    Path("figures/examples.png").write_bytes(b"pixels")
    evaluated, drawn = ({"test/pixel/iou": 0.8}, []), ({}, [Path("figures")])
    for (scores, files), pictures in ((evaluated, 0), (drawn, 1), (drawn, 1), (evaluated, 1)):
        tracking.log_stage(project, scores, files)
        (run,) = runs()
        note = run.data.tags["mlflow.note.content"]
        assert note.count(f"(get-artifact?path=figures%2Fexamples.png&run_uuid={run.info.run_id})") == pictures
        assert "| pixel IoU | nan | 0.800 |" in note


def test_a_run_that_a_store_lacks_is_made_again_from_the_files(project, tmp_path, monkeypatch):
    train(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    tracking.log_stage(project, {"test/pixel/iou": 0.8}, [])
    (run,) = runs("other.db")
    assert curve(run, "other.db") == [(1, 2.0), (2, 1.0)]
    assert run.data.tags["rebuilt_from_files"] == "true"


def test_other_parameters_get_a_run_of_their_own(project):
    train(project)
    changed = project.model_copy(update={"evaluate": project.evaluate.model_copy(update={"foreground_threshold": 0.9})})
    tracking.log_stage(changed, {"test/pixel/iou": 0.7}, [])
    assert sorted(run.data.params["evaluate.foreground_threshold"] for run in runs()) == [
        str(project.evaluate.foreground_threshold),
        "0.9",
    ]


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stopped_training_is_marked_and_goes_on_in_its_run(project, error, status):
    stopped(project, error)
    assert runs()[0].info.status == status
    train(project)
    (run,) = runs()
    assert run.info.status == "FINISHED" and curve(run) == [(1, 2.0), (2, 1.0)]
    assert not tracking.UNFINISHED.exists()


def test_another_training_gets_another_run(project):
    stopped(project, KeyboardInterrupt)
    train(project, key="train-2")
    assert sorted(run.info.status for run in runs()) == ["FINISHED", "KILLED"]


def test_a_run_deleted_meanwhile_is_made_again(project):
    stopped(project, KeyboardInterrupt)
    client_of("mlflow.db").delete_run(runs()[0].info.run_id)
    train(project)
    (run,) = runs()
    assert curve(run) == [(1, 2.0), (2, 1.0)]


class Flaky:
    """Makes some calls of MLflow fail."""

    def __init__(self, monkeypatch):
        self.down, self.calls = False, 0
        monkeypatch.setattr(tracking, "PAUSE_SECONDS", 0)
        for name in ("log_batch", "log_artifact", "get_experiment_by_name"):
            self.wrap(monkeypatch, name, getattr(mlflow.MlflowClient, name))

    def wrap(self, monkeypatch, name, method):
        def call(client, *arguments, **named):
            if self.down:
                self.calls += 1
                raise ConnectionError("server down")
            return method(client, *arguments, **named)

        monkeypatch.setattr(mlflow.MlflowClient, name, call)


@pytest.mark.parametrize("down", [{0}, {1}, {1, 2}, {3}, {0, 1, 2}])
def test_what_could_not_be_sent_is_sent_later(down, project, monkeypatch, capsys):
    server = Flaky(monkeypatch)
    server.down = 0 in down
    with tracking.training_run(project, "float32", "train-1") as log:
        for epoch in (1, 2):
            server.down = epoch in down
            log.epoch(epoch, {"loss": 3.0 - epoch})
        write_results(project)
        server.down = 3 in down
    server.down = False
    tracking.log_stage(project, {"test/pixel/iou": 0.8}, [])
    (run,) = runs()
    assert run.info.status == "FINISHED" and curve(run) == [(1, 2.0), (2, 1.0)]
    assert run.data.params["train.seed"] == "2018" and run.data.metrics["test/pixel/iou"] == 0.8
    assert capsys.readouterr().err.count("MLflow cannot be written to") == 1


def test_pictures_are_kept_with_their_epochs(project, monkeypatch):
    server = Flaky(monkeypatch)
    with tracking.training_run(project, "float32", "train-1") as log:
        for epoch in (1, 2):
            server.down = epoch == 1
            log.picture(epoch, np.full((4, 6, 3), 100 * epoch, np.uint8))
        server.down = False
        write_results(project)
    client, (run,) = client_of("mlflow.db"), runs()
    names = [item.path for item in client.list_artifacts(run.info.run_id, "images")]
    # How MLflow names a picture that its pages show with a slider of steps.
    shown = sorted(name for name in names if name.endswith(".png"))
    assert [name.split("+")[1:3] for name in shown] == [["step", "1"], ["step", "2"]]
    assert cv2.imread(client.download_artifacts(run.info.run_id, shown[1])).tolist() == [[[200] * 3] * 6] * 4


def test_what_a_training_asks_of_the_machine(project):
    use = MachineUse(seconds=0.05)
    time.sleep(0.3)
    means = use.means()
    use.ended.set()
    assert 0 <= means["system/cpu_utilization_percentage"] <= 100 and means["system/system_memory_usage_megabytes"] > 10
    train(project)
    assert not any(thread.name.startswith("Thread") and thread.is_alive() and "_keep_sampling" in thread.name
                   for thread in threading.enumerate())  # fmt: skip


def test_a_dead_server_is_not_asked_for_ever(project, monkeypatch):
    server = Flaky(monkeypatch)
    server.down = True
    with tracking.training_run(project, "float32", "train-1") as log:
        for epoch in range(1, 20):
            log.epoch(epoch, {"loss": 1.0})
        write_results(project)
    assert server.calls == tracking.TRIES


def test_scores_are_logged_once(project):
    train(project)
    for value in (0.8, 0.8, 0.9):
        tracking.log_stage(project, {"test/pixel/iou": value}, [])
    history = client_of("mlflow.db").get_metric_history(runs()[0].info.run_id, "test/pixel/iou")
    assert [metric.value for metric in history] == [0.8, 0.9]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///params.yaml/mlflow.db"])
def test_a_dead_store_costs_one_warning_and_no_result(project, uri, monkeypatch, capsys):
    Path("params.yaml").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    train(project)
    assert not tracking.log_stage(project, {"x": 1.0}, [])
    assert time.monotonic() - started < 60
    assert model_file.MODEL.exists()
    # One warning of two lines for each of the two stages.
    assert capsys.readouterr().err.count("MLflow cannot be written to") == 2


def test_a_run_is_named_after_what_differs_from_the_commit(project, monkeypatch):
    committed = (Path(__file__).parents[1] / "params.yaml").read_text()
    monkeypatch.setattr(names, "_git", lambda *arguments: committed if arguments[0] == "show" else "")
    assert _run_name(project) == "bbbc038-fixed"
    changed = {"train.seed": 3, "train.model.filters": [8, 16, 32, 64], "evaluate.scales": [1], "train.epochs": 2}
    Path("params.yaml").write_text(params.override(committed, changed))
    monkeypatch.setenv("DVC_EXP_NAME", "brave-name")
    name = _run_name(params.load())
    assert name == "brave-name train.seed=3 train.epochs=2 train.model.filters=(8, 16, 32, 64) and 1 more"


def test_without_git_a_run_is_named_after_its_data(project):
    assert _run_name(project) == "bbbc038-fixed"


def test_stages_are_told_apart_by_their_entries_in_the_lock(project):
    assert _stage_tags() == {}
    Path("dvc.lock").write_text("stages:\n  train:\n    cmd: a\n  evaluate:\n    cmd: b\n")
    tags = _stage_tags()
    assert set(tags) == {"dvc.train", "dvc.evaluate"} and len(set(tags.values())) == 2


def scored(settings, validation, seed):
    """Train and evaluate a model; return the version of the registered model."""
    with tracking.training_run(settings, "float32", f"train-{seed}") as log:
        log.epoch(1, {"loss": 2.0})
        write_results(settings, seed)
    assert tracking.log_stage(settings, {tracking.CHAMPION_SCORE: validation, "test/instance/dsb_score": 0.4}, [])
    client = client_of("mlflow.db")
    return client, max(client.search_model_versions("name = 'nuclei-unet'"), key=lambda v: int(v.version))


def test_a_server_gets_everything_by_its_address_alone(project, tmp_path, monkeypatch):
    project = small()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    with mlflow_server(tmp_path / "server", port):
        with tracking.training_run(project, "float32", "train-1") as log:
            log.epoch(1, {"loss": 2.0})
            log.picture(1, np.zeros((4, 6, 3), np.uint8))
            write_results(project)
        scores = {tracking.CHAMPION_SCORE: 0.5, "test/instance/dsb_score": 0.4}
        assert tracking.log_stage(project, scores, [tracking.PER_IMAGE], "evaluate", 1.0)
        client = mlflow.MlflowClient(address)
        (run,) = client.search_runs([client.get_experiment_by_name("nuclei-unet").experiment_id])
        assert run.info.status == "FINISHED" and run.data.metrics.items() >= scores.items()
        files = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert files == {"history.csv", "images", "per_image.csv", "per_image.json"}
        # Files go through the server, too: whoever reads them needs no access to where it keeps them.
        copy = client.download_artifacts(run.info.run_id, "per_image.csv", str(tmp_path))
        assert Path(copy).read_bytes() == tracking.PER_IMAGE.read_bytes()
        assert mlflow.pyfunc.load_model("models:/nuclei-unet@champion").metadata.signature
        assert list(pages(address)) == ["nuclei-unet"]
    assert not (tmp_path / "mlflow.db").exists() and not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "no-such://store"])
def test_the_ui_names_a_store_that_does_not_answer(uri, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=f"MLFLOW_TRACKING_URI: {uri} does not answer"):
        pages(uri)


def test_the_champion_changes_only_for_a_better_score(project):
    (Path.cwd() / "params.yaml").write_text((Path(__file__).parents[1] / "params.yaml").read_text())
    for seed, validation, holder, reason in (
        (1, 0.500, "1", "yes: the first one"),
        (2, 0.504, "1", "no: 0.5040 is not more than 0.5000 of version 1 by over 0.005"),
        (3, 0.506, "3", "yes: 0.5060 is more than 0.5000 of version 1 by over 0.005"),
        (4, 0.400, "3", "no: "),
    ):
        client, version = scored(project, validation, seed)
        assert str(version.version) == str(seed) and version.tags["champion"].startswith(reason)
        assert str(client.get_model_version_by_alias("nuclei-unet", "champion").version) == holder
    # A stage that runs again registers nothing twice.
    tracking.log_stage(project, {tracking.CHAMPION_SCORE: 0.4, "test/instance/dsb_score": 0.4}, [])
    assert len(client.search_model_versions("name = 'nuclei-unet'")) == 4


def test_the_served_model_takes_pngs_and_arrays(project):
    scored(small(), 0.5, 1)
    model = mlflow.pyfunc.load_model("models:/nuclei-unet@champion")
    grey = np.zeros((40, 30))
    rgb = np.random.default_rng(0).integers(0, 255, (17, 33, 3))
    picture = base64.b64encode(_example()).decode()
    found = model.predict(pd.DataFrame({"image": [picture, grey.tolist(), rgb.tolist(), (rgb / 255).tolist()]}))
    assert list(found.columns) == ["labels", "count", "measurements"]
    for row, shape in zip(found.itertuples(), ((64, 64), (40, 30), (17, 33), (17, 33)), strict=True):
        labels = cv2.imdecode(np.frombuffer(base64.b64decode(row.labels), np.uint8), cv2.IMREAD_UNCHANGED)
        assert labels.shape == shape and labels.max() == row.count == len(row.measurements)
    assert found["count"][1] == 0
    for wrong, match in (("no base64!", "neither base64 of a PNG nor an array"), ([[1, 2], [3]], "different lengths")):
        with pytest.raises(Exception, match=match):
            model.predict(pd.DataFrame({"image": [wrong]}))
