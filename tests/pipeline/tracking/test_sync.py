"""Runs in MLflow: one that all stages find, made from files; whether MLflow is there or not, stages go on."""

import time
from pathlib import Path

import mlflow
import numpy as np
import pytest

from benchmarks.fault_injection.tracking import mlflow_server
from pipeline import layout
from pipeline.process import free_port
from pipeline.tracking import names, store
from pipeline.tracking.client import training_run
from pipeline.tracking.store import pages
from pipeline.tracking.sync import sync
from tests.pipeline.tracking.trainings import client_of, evaluate, scored, small, train, visualize, write_model
from tests.refusals import refused


def curve(run, store="mlflow.db"):
    return [(m.step, m.value) for m in client_of(store).get_metric_history(run.info.run_id, names.curve("loss"))]


def runs(store="mlflow.db"):
    client = client_of(store)
    return client.search_runs([client.get_experiment_by_name("nuclei-unet").experiment_id])


def test_all_stages_use_the_run_of_the_model_and_a_store_without_it_gets_it_from_the_files(
    project, tmp_path, monkeypatch
):
    train(project)
    assert evaluate(project) and visualize(project)
    (run,) = runs()
    assert run.info.status == "FINISHED" and curve(run) == [(1, 2.0), (2, 1.0)]
    assert run.data.metrics["train_seconds"] < 60 and run.data.metrics["test/pixel/iou"] == 0.8
    assert run.data.params["train.model.filters"] == "(2, 4)" and run.inputs.dataset_inputs
    assert {"machine", "precision", "params_sha256", "champion"} <= set(run.data.tags)
    assert run.data.tags["seconds.evaluate"] == "3"
    note = run.data.tags["mlflow.note.content"]
    assert "| Pixel IoU | 0.800 | 0.800 |" in note
    assert note.count(f"(get-artifact?path=preview.png&run_uuid={run.info.run_id})") == 1
    client = client_of("mlflow.db")
    assert client.load_table(run.info.experiment_id, "per_image.json", [run.info.run_id]).dsb_score.tolist() == [0.5]
    files = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert files >= {path.name for path in (layout.HISTORY, *layout.TABLES, *layout.PAGES)}
    (trained,) = (m for m in client.search_logged_models([run.info.experiment_id]) if m.name == "model")
    assert sorted(mlflow.keras.load_model(f"models:/{trained.model_id}").output_names) == sorted(project.train.targets)

    # What is there is not sent again.
    with monkeypatch.context() as patch:
        calls = ("log_batch", "log_artifact", "log_inputs", "set_tag", "create_run", "update_run", "set_terminated")
        for name in calls:
            patch.setattr(mlflow.MlflowClient, name, lambda *_, name=name, **__: pytest.fail(name))
        sync(project)

    # A run that a store lacks is made again from the files.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    sync(project)
    (run,) = runs("other.db")
    assert run.info.status == "FINISHED" and curve(run, "other.db") == [(1, 2.0), (2, 1.0)]
    assert run.data.tags["rebuilt_from_files"] == "true" and run.data.metrics["test/pixel/iou"] == 0.8

    # A model of another training is not taken.
    write_model(small(seed=2))
    refused(r"model.onnx: not made from .*trained.keras", sync, project)
    layout.SCORES_FILE.unlink()
    refused(r"scores.json: no such file", sync, project)


@pytest.mark.parametrize(("error", "status"), [(ZeroDivisionError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_stopped_training_is_marked_and_goes_on_in_its_run(project, error, status):
    with pytest.raises(error), training_run(project, "float32", "train-1") as log:
        log.epoch(1, {"loss": 2.0})
        raise error
    assert runs()[0].info.status == status
    train(project)
    (run,) = runs()
    assert run.info.status == "FINISHED" and curve(run) == [(1, 2.0), (2, 1.0)]


class Flaky:
    """Makes some calls of MLflow fail."""

    def __init__(self, monkeypatch):
        self.down, self.calls = False, 0
        for name in ("log_batch", "log_image", "get_experiment_by_name"):
            self.wrap(monkeypatch, name, getattr(mlflow.MlflowClient, name))

    def wrap(self, monkeypatch, name, method):
        def call(client, *arguments, **named):
            if self.down:
                self.calls += 1
                raise ConnectionError("server down")
            return method(client, *arguments, **named)

        monkeypatch.setattr(mlflow.MlflowClient, name, call)


@pytest.mark.parametrize("down", [{0}, {1}, {2, 3}, {3}, {0, 1, 2}])
def test_what_the_log_misses_is_sent_from_the_files(down, project, monkeypatch, capsys):
    """0 is the start, 3 the end of the training."""
    server = Flaky(monkeypatch)
    monkeypatch.setattr(store, "PAUSE_SECONDS", 0)
    server.down = 0 in down
    with training_run(project, "float32", "train-1") as log:
        for epoch in (1, 2):
            server.down = epoch in down
            log.epoch(epoch, {"loss": 3.0 - epoch})
            log.picture(epoch, np.full((4, 6, 3), 100 * epoch, np.uint8))
        write_model(project)
        server.down = 3 in down
    server.down = False
    assert evaluate(project)
    (run,) = runs()
    assert run.info.status == "FINISHED" and sorted(curve(run)) == [(1, 2.0), (2, 1.0)]
    assert run.data.params["train.seed"] == "1" and run.data.metrics["test/pixel/iou"] == 0.8
    assert capsys.readouterr().err.count("MLflow cannot be written to") == 1
    pictures = [item.path for item in client_of("mlflow.db").list_artifacts(run.info.run_id, "images")]
    # How MLflow names a picture that its pages show with a slider of steps.
    steps = sorted(path.split("+")[2] for path in pictures if path.endswith(".png"))
    assert steps == [str(epoch) for epoch in (1, 2) if epoch not in down]


def test_a_dead_server_is_asked_seldom(project, monkeypatch):
    server = Flaky(monkeypatch)
    server.down = True
    with training_run(project, "float32", "train-1") as log:
        for epoch in range(1, 20):
            log.epoch(epoch, {"loss": 1.0})
        write_model(project)
    assert server.calls == 2  # at the start and at the end


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///params.yaml/mlflow.db"])
def test_a_dead_store_costs_one_warning_a_stage_and_no_result(project, uri, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    train(project)
    assert not evaluate(project)
    assert time.monotonic() - started < 60
    assert layout.TRAINED.exists()
    assert capsys.readouterr().err.count("MLflow cannot be written to") == 2


@pytest.mark.slow
def test_a_server_gets_everything_by_its_address_alone(project, tmp_path, monkeypatch):
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    (tmp_path / "mlflow.db").unlink()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    with mlflow_server(tmp_path / "server", port):
        train(project)
        assert evaluate(project) and visualize(project)
        client = mlflow.MlflowClient(address)
        (run,) = client.search_runs([client.get_experiment_by_name("nuclei-unet").experiment_id])
        assert run.info.status == "FINISHED" and run.data.metrics["test/pixel/iou"] == 0.8
        # Files go through the server, too: whoever reads them needs no access to where it keeps them.
        copy = client.download_artifacts(run.info.run_id, "per_image.csv", str(tmp_path))
        assert Path(copy).read_bytes() == layout.PER_IMAGE.read_bytes()
        assert mlflow.pyfunc.load_model("models:/nuclei-unet@champion").metadata.signature
        assert list(pages(address)) == ["nuclei-unet"]
    assert not (tmp_path / "mlflow.db").exists() and not (tmp_path / "mlruns").exists()


def test_the_champion_changes_only_for_a_better_score(project):
    for seed, validation, holder, reason in (
        (1, 0.500, "1", "yes: the first one"),
        (2, 0.504, "1", "no: 0.5040 is not above 0.5000 of version 1 by more than 0.005"),
        (3, 0.506, "3", "yes: 0.5060 is above 0.5000 of version 1 by more than 0.005"),
        (4, 0.400, "3", "no: "),
    ):
        settings = small(seed)
        client, version = scored(settings, validation)
        assert str(version.version) == str(seed) and version.tags["champion"].startswith(reason)
        assert str(client.get_model_version_by_alias("nuclei-unet", "champion").version) == holder
    # A stage that runs again registers nothing twice, but another model.
    for score, versions in ((0.4, 4), (0.6, 5)):
        assert evaluate(settings, score)
        assert len(client.search_model_versions("name = 'nuclei-unet'")) == versions
