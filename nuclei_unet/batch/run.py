"""What runs over files and over a slide share: the settings, the model, one run at a time."""

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from nuclei_unet.batch import pool
from nuclei_unet.errors import InputError
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction import models
from nuclei_unet.prediction.predictor import FAST
from nuclei_unet.prediction.segmenter import Segmenter
from nuclei_unet.results.record import STATE, versions
from nuclei_unet.settings import PredictSettings

# Of the settings, those that decide about results, beside the model.
DECIDING = ("fast", "channel", "axes", "project", "pixel_size", "diameter", "formats")


@dataclass(frozen=True)
class RunSettings:
    """What the user chose for a run.

    `model` is a file, an address such as `models:/nuclei-unet@champion`, or None: the pretrained model. For workers,
    paths are absolute, `model` is a local file, and `key` says how results are made.
    """

    folder: Path
    model: Path | str | None = None
    fast: bool = False
    channel: str | None = None
    axes: str | None = None
    project: str | None = None
    pixel_size: float | None = None
    diameter: float | None = None
    formats: tuple[str, ...] = ()
    overwrite: bool = False
    jobs: int = 1
    scheduler: str | None = None
    key: str = ""

    @property
    def deciding(self) -> dict[str, object]:
        """Those that decide about results, by name."""
        return {name: getattr(self, name) for name in DECIDING}

    @property
    def threads(self) -> int | None:
        """Those of a process; None: as many as a worker of the cluster has."""
        return None if self.scheduler else max(pool.cores() // self.jobs, 1)


@dataclass(frozen=True)
class ChosenModel:
    """The model of a run, found once: an address may lead elsewhere a minute later."""

    path: Path
    name: str
    digest: str
    metadata: Metadata


def choose_model(settings: RunSettings) -> ChosenModel:
    """Find the model of a run. Raises InputError that names it if it cannot predict."""
    path = models.find(settings.model).absolute()
    name = str(settings.model or "pretrained")
    metadata, _, digest = models.describe(path if settings.model else None)
    if metadata.predict is None:
        raise InputError(f"{name}: was trained but not evaluated, so it does not say how its maps become nuclei")
    return ChosenModel(path, name, digest, metadata)


def predict_settings(metadata: Metadata, fast: bool) -> PredictSettings:
    """Return a model's own settings, or those of a prediction that is faster."""
    return metadata.chosen.model_copy(update={"augmentations": FAST} if fast else {})


def facts(model: ChosenModel, settings: RunSettings) -> dict[str, Any]:
    """Return what run.json says of how results were made."""
    return {
        "versions": versions(),
        "model": {"name": model.name, "sha256": model.digest, "commit": model.metadata.commit},
        "parameters": settings.deciding,
    }


def segmenter(settings: RunSettings) -> tuple[Segmenter, str]:
    """Return the model of a worker's settings, ready to predict, and what computes it. A process loads it once."""
    changed, threads = settings.model.stat().st_mtime_ns, settings.threads or pool.threads()
    return _loaded(settings.model, changed, threads, settings.fast)


# One: workers of a cluster live long, and a file may hold another model the next time.
@functools.lru_cache(maxsize=1)
def _loaded(model: Path, changed: int, threads: int | None, fast: bool) -> tuple[Segmenter, str]:
    opened = models.load(model, threads=threads, gpu=True)
    predict = predict_settings(opened.metadata, fast)
    return Segmenter(opened.network, opened.metadata.but(predict=predict)), opened.network.computed_by


def key(*values: object) -> str:
    """Return what tells results of this version apart that were made in different ways, 64 hexadecimal digits."""
    content = json.dumps([versions()["nuclei-unet"], *values], default=str, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder of results, which is made."""
    lock = filelock.FileLock(folder / STATE / "lock", blocking=False)
    try:
        (folder / STATE).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"{folder}: another run is writing there; wait for it or stop it") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()
