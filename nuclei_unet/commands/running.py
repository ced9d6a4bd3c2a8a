"""What `nuclei-unet predict` does alike for images and slides: the model, the workers, one run at a time, Ctrl-C."""

import argparse
import contextlib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from nuclei_unet import cluster
from nuclei_unet.errors import InputError
from nuclei_unet.files import remove_unfinished

if TYPE_CHECKING:  # loaded late: they bring what images are computed with
    from nuclei_unet.network.metadata import Metadata
    from nuclei_unet.prediction.segmenter import Segmenter


@dataclass(frozen=True)
class Chosen:
    """The model of a run, and who works with it."""

    model: Path
    metadata: "Metadata"
    digest: str
    about: dict[str, str | None]  # of the model, for run.json
    engine: str
    scheduler: str | None
    jobs: int
    threads: int | None  # of a process; None: as many as a worker of the cluster has


def chosen(arguments: argparse.Namespace, tasks: int | None = None) -> Chosen:
    """Return what the arguments choose, with no more processes than tasks; raise InputError for no such model."""
    from nuclei_unet.network import untrusted
    from nuclei_unet.prediction import models

    # Found once: an address may lead elsewhere a minute later.
    path = models.find(arguments.model).absolute()
    scheduler = arguments.scheduler if arguments.jobs else cluster.address(arguments.scheduler)
    jobs = min(arguments.jobs or 1, tasks or sys.maxsize)
    threads = max(cores() // jobs, 1)
    untrusted.check(path, threads)
    metadata, _, digest = models.describe(path)
    if metadata.predict is None:
        raise InputError(
            f"{arguments.model}: was trained but not evaluated; run `dvc repro evaluate` and use what it writes"
        )
    return Chosen(
        path,
        metadata,
        digest,
        {"name": arguments.model or "pretrained", "sha256": digest, "commit": metadata.commit},
        models.engine_for(path, arguments.engine),  # chosen here: workers may differ
        scheduler,
        jobs,
        None if scheduler else threads,
    )


def segmenter(model: Path, engine: str, threads: int | None, views: str | None) -> "tuple[Segmenter, str]":
    """Return a model ready to predict, and what computes it. A process loads it once, not once an image."""
    return _loaded(model, model.stat().st_mtime_ns, engine, threads or cluster.threads(), views)


# One: workers of a cluster live long, and a file may hold another model the next time.
@functools.lru_cache(maxsize=1)
def _loaded(model: Path, changed: int, engine: str, threads: int, views: str | None) -> "tuple[Segmenter, str]":
    from nuclei_unet.prediction import models
    from nuclei_unet.prediction.segmenter import Segmenter

    opened = models.load(model, engine=engine, threads=threads)
    metadata = opened.metadata
    if views:
        metadata = metadata.model_copy(update={"predict": metadata.predict.with_views(views)})
        metadata = metadata.model_copy(update={"recipe": metadata})
    return Segmenter(opened.network, metadata), opened.engine


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder of results, which is made."""
    from nuclei_unet.results import results

    lock = filelock.FileLock(folder / results.STATE / "lock", blocking=False)
    try:
        (folder / results.STATE).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"{folder}: another run is writing there; wait for it or stop it") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()


def interrupted(pool: cluster.Pool, folder: Path, done: str) -> None:
    """End this process at once, as Ctrl-C asks; say what is done. The folder is locked: nobody else writes there."""
    pool.stop()
    remove_unfinished(folder)
    print(f"interrupted; {done} are done, and the same command goes on from there", file=sys.stderr, flush=True)
    # Threads cannot be stopped, and may be deep in a computation.
    os._exit(130)


def warn_of_engines(engines: Iterable[str]) -> None:
    """Say so if not all of a run was computed alike."""
    if len(found := sorted(engines)) > 1:
        print(f"warning: workers computed differently, outlines may differ by a pixel: {', '.join(found)}")


def digest(value: object) -> str:
    """Return the SHA-256 of a value as JSON, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, default=str, sort_keys=True).encode()).hexdigest()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
