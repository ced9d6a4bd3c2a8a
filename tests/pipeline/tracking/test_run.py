"""The mirror in MLflow: a run that all stages find, and a pipeline that does not care whether MLflow is there."""

import time
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pytest

from benchmarks.fault_injection.tracking import mlflow_server
from pipeline.layout import HISTORY, PER_IMAGE, TRAINED
from pipeline.process import free_port
from pipeline.report.scores import DECISIVE
from pipeline.tracking import mirror, names
from pipeline.tracking import run as tracking
from pipeline.tracking.mirror import log_stage, training_run
from pipeline.tracking.store import pages
from tests import PARAMS
from tests.pipeline.tracking.trainings import client_of, scored, small, train, write_results


def stopped(settings, error, key="train-1"):
    """Train one epoch and stop."""
    with pytest.raises(error), training_run(settings, "float32", key) as log:
        log.epoch(1, {"loss": 2.0})
        raise error


def curve(run, store="mlflow.db"):
    return [(m.step, m.value) for m in client_of(store).get_metric_history(run.info.run_id, names.curve("loss"))]


def runs(store="mlflow.db"):
    client = client_of(store)
    return client.search_runs([client.get_experiment_by_name("nuclei-unet").experiment_id])


def test_later_stages_find_the_run_of_the_model(project):
    train(project)
    assert log_stage(project, {"test/pixel/iou": 0.8}, [HISTORY], "evaluate", 3.2)
    assert log_stage(project, {}, [], "visualize", 1.0)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert run.data.metrics.pop("train_seconds") < 60
    assert run.data.metrics == {"curves/loss": 1.0, "test/pixel/iou": 0.8}
    assert "| Pixel IoU | nan | 0.800 |" in run.data.tags["mlflow.note.content"]
    assert {"machine", "precision", "params_sha256"} <= set(run.data.tags)
    table = client_of("mlflow.db").load_table(run.info.experiment_id, "per_image.json", [run.info.run_id])
    assert table.dsb_score.tolist() == [0.5]
    assert run.data.params["train.model.filters"] == "(32, 64, 96, 128)"
    assert run.data.tags["seconds.evaluate"] == "3"
    loaded = mlflow.keras.load_model(f"models:/{run.outputs.model_outputs[0].model_id}")
    assert sorted(loaded.output_names) == sorted(project.train.targets)


def test_the_description_shows_examples_once_they_are_drawn(project):
    train(project)
    Path("figures").mkdir()
    cv2.imwrite("figures/examples.png", np.full((900, 1200, 3), 200, np.uint8))
    evaluated, drawn = ({"test/pixel/iou": 0.8}, []), ({}, [Path("figures")])
    for (scores, files), pictures in ((evaluated, 0), (drawn, 1), (drawn, 1), (evaluated, 1)):
        log_stage(project, scores, files)
        (run,) = runs()
        note = run.data.tags["mlflow.note.content"]
        assert note.count(f"(get-artifact?path=preview.png&run_uuid={run.info.run_id})") == pictures
        assert "| Pixel IoU | nan | 0.800 |" in note


def test_a_run_that_a_store_lacks_is_made_again_from_the_files(project, tmp_path, monkeypatch):
    train(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    log_stage(project, {"test/pixel/iou": 0.8}, [])
    (run,) = runs("other.db")
    assert curve(run, "other.db") == [(1, 2.0), (2, 1.0)]
    assert run.data.tags["rebuilt_from_files"] == "true"


def test_other_parameters_get_a_run_of_their_own(project):
    train(project)
    changed = project.model_copy(update={"evaluate": project.evaluate.model_copy(update={"foreground_threshold": 0.9})})
    log_stage(changed, {"test/pixel/iou": 0.7}, [])
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
        monkeypatch.setattr(mirror, "PAUSE_SECONDS", 0)
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
    with training_run(project, "float32", "train-1") as log:
        for epoch in (1, 2):
            server.down = epoch in down
            log.epoch(epoch, {"loss": 3.0 - epoch})
        write_results(project)
        server.down = 3 in down
    server.down = False
    log_stage(project, {"test/pixel/iou": 0.8}, [])
    (run,) = runs()
    assert run.info.status == "FINISHED" and curve(run) == [(1, 2.0), (2, 1.0)]
    assert run.data.params["train.seed"] == "2018" and run.data.metrics["test/pixel/iou"] == 0.8
    assert capsys.readouterr().err.count("MLflow cannot be written to") == 1


def test_pictures_are_kept_with_their_epochs(project, monkeypatch):
    server = Flaky(monkeypatch)
    with training_run(project, "float32", "train-1") as log:
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


def test_a_dead_server_is_not_asked_for_ever(project, monkeypatch):
    server = Flaky(monkeypatch)
    server.down = True
    with training_run(project, "float32", "train-1") as log:
        for epoch in range(1, 20):
            log.epoch(epoch, {"loss": 1.0})
        write_results(project)
    assert server.calls == mirror.TRIES


def test_scores_are_logged_once(project):
    train(project)
    for value in (0.8, 0.8, 0.9):
        log_stage(project, {"test/pixel/iou": value}, [])
    history = client_of("mlflow.db").get_metric_history(runs()[0].info.run_id, "test/pixel/iou")
    assert [metric.value for metric in history] == [0.8, 0.9]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///params.yaml/mlflow.db"])
def test_a_dead_store_costs_one_warning_and_no_result(project, uri, monkeypatch, capsys):
    Path("params.yaml").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    train(project)
    assert not log_stage(project, {"x": 1.0}, [])
    assert time.monotonic() - started < 60
    assert TRAINED.exists()
    # One warning of two lines for each of the two stages.
    assert capsys.readouterr().err.count("MLflow cannot be written to") == 2


def test_a_server_gets_everything_by_its_address_alone(project, tmp_path, monkeypatch):
    project = small()
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    with mlflow_server(tmp_path / "server", port):
        with training_run(project, "float32", "train-1") as log:
            log.epoch(1, {"loss": 2.0})
            log.picture(1, np.zeros((4, 6, 3), np.uint8))
            write_results(project)
        scores = {DECISIVE: 0.5, "test/instance/dsb_score": 0.4}
        assert log_stage(project, scores, [PER_IMAGE], "evaluate", 1.0)
        client = mlflow.MlflowClient(address)
        (run,) = client.search_runs([client.get_experiment_by_name("nuclei-unet").experiment_id])
        assert run.info.status == "FINISHED" and run.data.metrics.items() >= scores.items()
        files = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert files == {"history.csv", "images", "per_image.csv", "per_image.json"}
        # Files go through the server, too: whoever reads them needs no access to where it keeps them.
        copy = client.download_artifacts(run.info.run_id, "per_image.csv", str(tmp_path))
        assert Path(copy).read_bytes() == PER_IMAGE.read_bytes()
        assert mlflow.pyfunc.load_model("models:/nuclei-unet@champion").metadata.signature
        assert list(pages(address)) == ["nuclei-unet"]
    assert not (tmp_path / "mlflow.db").exists() and not (tmp_path / "mlruns").exists()


def test_the_champion_changes_only_for_a_better_score(project):
    (Path.cwd() / "params.yaml").write_text(PARAMS.read_text())
    for seed, validation, holder, reason in (
        (1, 0.500, "1", "yes: the first one"),
        (2, 0.504, "1", "no: 0.5040 is not above 0.5000 of version 1 by more than 0.005"),
        (3, 0.506, "3", "yes: 0.5060 is above 0.5000 of version 1 by more than 0.005"),
        (4, 0.400, "3", "no: "),
    ):
        client, version = scored(project, validation, seed)
        assert str(version.version) == str(seed) and version.tags["champion"].startswith(reason)
        assert str(client.get_model_version_by_alias("nuclei-unet", "champion").version) == holder
    # A stage that runs again registers nothing twice.
    log_stage(project, {DECISIVE: 0.4, "test/instance/dsb_score": 0.4}, [])
    assert len(client.search_model_versions("name = 'nuclei-unet'")) == 4
