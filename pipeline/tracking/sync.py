"""Make MLflow hold what the files in models/ and reports/ say; what it has already is not sent again.

Each trained model, with the parameters of its stages, is one run. It is found by the digests of both, so all stages use
the same run, also if DVC takes some of them from its cache. A run that is missing, on another server or after mlflow.db
was deleted, is made from the files. Functions raise what MLflow raises, except `after`.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import cv2
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run

from nuclei_unet.files import file_digest, tree_digest
from nuclei_unet.quiet import quiet_tensorflow
from pipeline import layout
from pipeline.dataset import processed
from pipeline.params import Params, flatten
from pipeline.report.results import existing, read_json
from pipeline.report.scores import flat_metrics
from pipeline.tracking import models, names, store

METRICS_A_CALL = 1000  # the most that MLflow takes
EXAMPLES = layout.FIGURES / "examples.png"  # the figure that the description shows
PREVIEW_WIDTH = 600  # px; MLflow does not shrink pictures, and its side panel needs room
# What each stage leaves to send. The tag `files.<stage>` holds the digest of what was sent.
FILES = {
    "train": (layout.TRAINED, layout.HISTORY),
    "evaluate": (layout.MODEL, *layout.TABLES),
    "visualize": layout.PAGES,
}


def after(stage: str, settings: Params, seconds: float) -> bool:
    """Call `sync` after a stage that took so long; a failure is one warning. Return whether MLflow took all."""
    return store.Attempts().do(sync, settings, stage, seconds)


def sync(settings: Params, last: str = "visualize", seconds: float | None = None, run_id: str | None = None) -> None:
    """Send what MLflow lacks of the stages up to `last`, which took `seconds`; `run_id` is the run, if it is known.

    Raises InputError if a file is missing, or if models/model.onnx was not made from models/trained.keras.
    """
    stages = list(FILES)[: list(FILES).index(last) + 1]
    digests = {stage: tree_digest(existing(path, stage) for path in FILES[stage]) for stage in stages}
    client, experiment = store.connect()
    run = client.get_run(run_id) if run_id else _run(client, experiment, settings)
    lacking = [stage for stage in stages if run.data.tags.get(f"files.{stage}") != digests[stage]]
    if not lacking and seconds is None and run.info.status == "FINISHED":
        return
    if {"train", "evaluate"} & {*lacking}:
        quiet_tensorflow()  # models are opened
    describe(client, run, settings)
    with mlflow.start_run(run_id=run.info.run_id):  # at its end the run is FINISHED
        mlflow.set_tag("model_sha256", file_digest(layout.TRAINED))
        if seconds is not None:
            mlflow.set_tag(f"seconds.{last}", f"{seconds:.0f}")
        if "train" in lacking:
            _send_training(client, run, seconds)
        if "evaluate" in lacking:
            _send_evaluation(client, run, settings)
        if "visualize" in lacking:
            mlflow.log_artifacts(str(layout.FIGURES), layout.FIGURES.name)
            mlflow.log_artifact(str(layout.REPORT))
            client.log_image(run.info.run_id, _preview(EXAMPLES), names.PREVIEW)
        if "evaluate" in stages:
            _note(run, settings, "visualize" in lacking)
        mlflow.set_tags({f"files.{stage}": digests[stage] for stage in lacking})


def create(client: mlflow.MlflowClient, experiment: str, settings: Params, tags: Mapping[str, str]) -> Run:
    """Create the run of a model with these parameters; its tags say what is known about the code."""
    known = {**names.code_tags(settings), "params_sha256": names.params_digest(settings), **tags}
    return client.create_run(experiment, tags=known, run_name=names.run_name(settings))


def describe(client: mlflow.MlflowClient, run: Run, settings: Params) -> None:
    """Log all parameters, and the data set as input, if the run has none."""
    if not run.data.params:
        values = [Param(key, str(value)) for key, value in flatten(settings).items()]
        client.log_batch(run.info.run_id, params=values)
    if not run.inputs.dataset_inputs:
        data = mlflow.data.from_pandas(
            processed.read_manifest(),
            source=str(layout.PROCESSED),
            name=settings.download.source,
            digest=file_digest(layout.PROCESSED / processed.MANIFEST)[:16],
        )
        tag = InputTag("mlflow.data.context", "training")
        client.log_inputs(run.info.run_id, [DatasetInput(Dataset.from_dictionary(data.to_dict()), [tag])])


def epochs(client: mlflow.MlflowClient, run_id: str) -> dict[int, float]:
    """Return epoch -> loss of the epochs that a run has."""
    return {metric.step: metric.value for metric in client.get_metric_history(run_id, names.curve("loss"))}


def _run(client: mlflow.MlflowClient, experiment: str, settings: Params) -> Run:
    """Return the run of the model in models/ and these parameters; it is created if there is none."""
    model, parameters = file_digest(layout.TRAINED), f"tags.params_sha256 = '{names.params_digest(settings)}'"
    if runs := client.search_runs([experiment], f"{parameters} and tags.model_sha256 = '{model}'", max_results=1):
        return runs[0]
    # MLflow may have been away when the training ended: its run has the first epochs, as the history has them.
    losses = pd.read_csv(layout.HISTORY).set_index("epoch").loss
    for run in client.search_runs([experiment], f"{parameters} and attributes.status != 'FINISHED'"):
        sent = epochs(client, run.info.run_id)
        if sent and all(np.isclose(losses.get(epoch, np.nan), loss, rtol=1e-4) for epoch, loss in sent.items()):
            return run
    return create(client, experiment, settings, {"rebuilt_from_files": "true"})


def _send_training(client: mlflow.MlflowClient, run: Run, seconds: float | None) -> None:
    known, now = epochs(client, run.info.run_id), int(time.time() * 1000)
    metrics = [
        Metric(names.curve(name), value, now, int(row["epoch"]))
        for row in pd.read_csv(layout.HISTORY).to_dict("records")
        for name, value in row.items()
        if name != "epoch" and row["epoch"] not in known
    ]
    for first in range(0, len(metrics), METRICS_A_CALL):
        client.log_batch(run.info.run_id, metrics=metrics[first : first + METRICS_A_CALL])
    if seconds is not None:
        mlflow.log_metric("train_seconds", round(seconds))
    mlflow.log_artifact(str(layout.HISTORY))
    models.log_trained(client, run)


def _send_evaluation(client: mlflow.MlflowClient, run: Run, settings: Params) -> None:
    metrics = flat_metrics(read_json(layout.SCORES_FILE, "evaluate"))
    mlflow.log_metrics({name: value for name, value in metrics.items() if run.data.metrics.get(name) != value})
    # In the form of `mlflow.log_table`, which would add to an existing table instead of replacing it.
    images = pd.read_csv(layout.PER_IMAGE, dtype={"image_id": str}).to_json(orient="split", index=False)
    mlflow.log_dict(json.loads(images), "per_image.json")
    mlflow.set_tag("mlflow.loggedArtifacts", '[{"path": "per_image.json", "type": "table"}]')
    for path in layout.TABLES:
        mlflow.log_artifact(str(path))
    models.register(client, run, metrics, settings.track.champion_margin)


def _note(run: Run, settings: Params, drawn: bool) -> None:
    """Set the run's description, with a picture of examples once they are drawn."""
    text = names.description(settings, flat_metrics(read_json(layout.SCORES_FILE, "evaluate")))
    if drawn or "files.visualize" in run.data.tags:
        path = quote(names.PREVIEW, safe="")
        text += f"\n\n![examples](get-artifact?path={path}&run_uuid={run.info.run_id})"
    mlflow.set_tag(names.NOTE, text)


def _preview(path: Path) -> np.ndarray:
    """Return a picture at most `PREVIEW_WIDTH` wide, uint8 (H, W, 3) RGB."""
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width = pixels.shape[:2]
    if width <= PREVIEW_WIDTH:
        return pixels
    return cv2.resize(pixels, (PREVIEW_WIDTH, round(height * PREVIEW_WIDTH / width)), interpolation=cv2.INTER_AREA)
