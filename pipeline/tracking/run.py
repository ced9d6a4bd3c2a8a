"""One run in MLflow for each trained model. Methods raise what MLflow raises; `mirror` decides what that means.

A run is found again by the digest of the trained model and of the parameters, so train, evaluate and visualize use the
same run, also if DVC takes some stages from its cache. A killed training continues in its run. A run that is missing,
on another server or after mlflow.db was deleted, is made again from the files.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import quote

import cv2
import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric, Param, RunTag

from nuclei_unet.files import file_digest
from pipeline import layout
from pipeline.dataset import processed
from pipeline.params import Params, flatten
from pipeline.report.scores import DECISIVE
from pipeline.tracking import models, names, store

UNFINISHED = layout.RESUME / "mlflow.json"  # the run of a training that is not yet complete in MLflow
METRICS_A_CALL = 1000  # the most that MLflow takes
EXAMPLES = "examples.png"  # the figure that the description shows
PREVIEW_WIDTH = 600  # px; MLflow does not shrink pictures, and its side panel needs room


class Run:
    """The run of one model. A method that raised can be called again: it continues where it failed."""

    def __init__(self, settings: Params):
        self.settings = settings
        self.run_id: str | None = None
        self._described = False
        self._known: set[int] = set()  # epochs that the run has already

    # ---- a training

    def open(self, key: str, tags: Mapping[str, str]) -> None:
        """Continue the run of the training named `key` if that was stopped before its end, or start a new one."""
        if not self.run_id:
            self.client, self.experiment_id = store.connect()
            known = _unfinished()
            if not (key and key == known.get("key") and self._continue(known["run_id"])):
                name = names.run_name(self.settings)
                self.run_id = self.client.create_run(self.experiment_id, run_name=name).info.run_id
                if key:
                    _remember({"key": key, "run_id": self.run_id})
        if not self._described:
            self._describe(tags)

    def log_epochs(self, rows: Iterable[tuple[int, Mapping[str, float]]], at: float | None = None) -> None:
        """Log losses and metrics of epochs, with the epoch as step; `at` is the time in seconds (default: now)."""
        stamp = int((at or time.time()) * 1000)
        metrics = [
            Metric(names.curve(name), value, stamp, epoch)
            for epoch, row in rows
            for name, value in row.items()
            if epoch not in self._known
        ]
        for first in range(0, len(metrics), METRICS_A_CALL):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + METRICS_A_CALL])

    def log_picture(self, epoch: int, pixels: np.ndarray) -> None:
        """Log a picture of the network's view after an epoch, uint8 (H, W, 3)."""
        self.client.log_image(self.run_id, pixels, key=names.PICTURE, step=epoch)

    def keep_for_later(self) -> None:
        """Note in a file which run the model in models/ belongs to, so that another process can finish the run."""
        if self.run_id:
            _remember(_unfinished() | {"model": file_digest(layout.TRAINED)})

    def finish(self) -> None:
        """Log the trained model and its history from their files, and close the run."""
        self.client.log_artifact(self.run_id, str(layout.HISTORY))
        self._with_active_run(models.log_trained)
        # Last: from here on the other stages find this run.
        self.client.set_tag(self.run_id, "model_sha256", file_digest(layout.TRAINED))
        self.client.set_terminated(self.run_id, "FINISHED")
        UNFINISHED.unlink(missing_ok=True)

    def stop(self, status: str) -> None:
        """Close the run as FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)

    # ---- a later stage

    def find(self) -> None:
        """Find the run of the model in models/ and these parameters; create or complete it from the files if needed."""
        self.client, self.experiment_id = store.connect()
        digest = file_digest(layout.TRAINED)
        found = self.client.search_runs(
            [self.experiment_id],
            f"tags.model_sha256 = '{digest}' and tags.params_sha256 = '{names.params_digest(self.settings)}'",
            max_results=1,
        )
        if found:
            self.run_id = found[0].info.run_id
            return
        known = _unfinished()
        key = known["key"] if known.get("model") == digest else ""
        self.open(key, {} if key else {"rebuilt_from_files": "true"})
        self.log_epochs((int(row.pop("epoch")), row) for row in pd.read_csv(layout.HISTORY).to_dict("records"))
        self.finish()

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log the metrics that the run lacks, or has with another value."""
        has = self.client.get_run(self.run_id).data.metrics
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id, metrics=[Metric(k, v, now, 0) for k, v in metrics.items() if has.get(k) != v]
        )

    def log_scores(self, metrics: Mapping[str, float]) -> None:
        """Log the table of all images, and a description of the run that shows its scores."""
        # In the form of MlflowClient.log_table, which would add to an existing table instead of replacing it.
        images = pd.read_csv(layout.PER_IMAGE, dtype={"image_id": str}).to_json(orient="split", index=False)
        self.client.log_dict(self.run_id, json.loads(images), "per_image.json")
        self.client.set_tag(self.run_id, "mlflow.loggedArtifacts", '[{"path": "per_image.json", "type": "table"}]')
        self._note(names.description(self.settings, metrics))
        self.set_tags(names.stage_tags())

    def log_files(self, paths: Iterable[Path]) -> None:
        """Log files and folders as artifacts under their own names; the description shows examples among them."""
        for path in paths:
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), path.name)
            else:
                self.client.log_artifact(self.run_id, str(path))
            if (path / EXAMPLES).is_file():
                self.client.log_image(self.run_id, _preview(path / EXAMPLES), names.PREVIEW)
                self._note(self.client.get_run(self.run_id).data.tags.get(names.NOTE, ""))

    def register(self, metrics: Mapping[str, float]) -> None:
        """Register the evaluated model with its scores, once; make it the champion if it is better by the margin."""
        name = store.experiment_name()
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name, description="U-Net that finds cell nuclei, ready to serve")
        tags = self.client.get_run(self.run_id).data.tags
        version = next(iter(self.client.search_model_versions(f"name = '{name}' and run_id = '{self.run_id}'")), None)
        if version is None:
            dirty = "-dirty" if tags.get("git_dirty") == "true" else ""
            commit = f"{tags['git_commit']}{dirty}" if "git_commit" in tags else None
            self._with_active_run(lambda: models.log_served(commit))
            (logged,) = (m for m in self.client.search_logged_models([self.experiment_id]) if m.name == names.SERVED
                         and m.source_run_id == self.run_id)  # fmt: skip
            source = f"models:/{logged.model_id}"
            # A server accepts such a source only together with the id; a database does not need it.
            version = self.client.create_model_version(name, source, self.run_id, model_id=logged.model_id)
        described = {"validation_dsb_score": metrics[DECISIVE], "test_dsb_score": metrics["test/instance/dsb_score"]}
        described |= {key: value for key, value in tags.items() if key.startswith("git_")}
        for key, value in described.items():
            self.client.set_model_version_tag(name, version.version, key, str(value))
        margin = self.settings.track.champion_margin
        reason = models.champion(self.client, name, version.version, metrics, margin)
        self.client.set_model_version_tag(name, version.version, "champion", reason)
        self.set_tags({"champion": reason})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        for key, value in tags.items():
            self.client.set_tag(self.run_id, key, value)

    # ---- parts

    def _continue(self, run_id: str) -> bool:
        """Continue a run of an earlier process if it is on this server; return whether it is."""
        try:
            run = self.client.get_run(run_id)
        except mlflow.MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        if run.info.lifecycle_stage != "active" or run.info.experiment_id != self.experiment_id:
            return False
        self.client.update_run(run_id, status="RUNNING")
        self._known = {metric.step for metric in self.client.get_metric_history(run_id, names.curve("loss"))}
        self.run_id = run_id
        return True

    def _describe(self, tags: Mapping[str, str]) -> None:
        """Log all parameters, what is known about the code, and the data set as input."""
        known = names.code_tags(self.settings) | names.stage_tags()
        known |= {"params_sha256": names.params_digest(self.settings)} | tags
        self.client.log_batch(
            self.run_id,
            params=[Param(key, str(value)) for key, value in flatten(self.settings).items()],
            tags=[RunTag(key, value) for key, value in known.items()],
        )
        data = mlflow.data.from_pandas(
            processed.read_manifest(),
            source=str(layout.PROCESSED),
            name=self.settings.download.source,
            digest=file_digest(layout.PROCESSED / processed.MANIFEST)[:16],
        )
        self._with_active_run(lambda: mlflow.log_input(data, context="training"))
        self._described = True

    def _note(self, text: str) -> None:
        """Set the run's description to the text, with a picture of examples once the run has one."""
        picture = f"![examples](get-artifact?path={quote(names.PREVIEW, safe='')}&run_uuid={self.run_id})"
        if picture not in text and any(file.path == names.PREVIEW for file in self.client.list_artifacts(self.run_id)):
            text = f"{text}\n\n{picture}"
        self.client.set_tag(self.run_id, names.NOTE, text)

    def _with_active_run(self, action: Callable[[], object]) -> None:
        """Call what only MLflow's fluent API offers, and keep the run's status."""
        status = self.client.get_run(self.run_id).info.status
        with mlflow.start_run(run_id=self.run_id):
            action()
        self.client.update_run(self.run_id, status=status)


def _preview(path: Path) -> np.ndarray:
    """Return a picture at most `PREVIEW_WIDTH` wide, uint8 (H, W, 3) RGB."""
    pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    height, width = pixels.shape[:2]
    if width <= PREVIEW_WIDTH:
        return pixels
    return cv2.resize(pixels, (PREVIEW_WIDTH, round(height * PREVIEW_WIDTH / width)), interpolation=cv2.INTER_AREA)


def _unfinished() -> dict[str, str]:
    try:
        return json.loads(UNFINISHED.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _remember(known: Mapping[str, str]) -> None:
    UNFINISHED.parent.mkdir(exist_ok=True)
    UNFINISHED.write_text(json.dumps(known))
