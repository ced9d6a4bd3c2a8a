"""A model on disk as training writes it: a .keras file in canonical form, so that equal models give equal bytes."""

import json
import warnings
import zipfile
from pathlib import Path

import keras

from nuclei_unet.errors import InputError
from nuclei_unet.network.metadata import MEMBER, Metadata, parse


def save(model: keras.Model, path: Path, metadata: Metadata) -> None:
    """Write a model (not compiled) with its metadata. Plain `keras.saving.load_model` reads it, too."""
    model.save(path)
    _canonical(path, {MEMBER: metadata.dump().encode()})


def load(path: Path) -> tuple[keras.Model, Metadata]:
    """Load a trained model and its metadata. Raises InputError that names the file if it is missing or damaged."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: {'damaged' if path.exists() else 'no such file'}")
    try:
        with zipfile.ZipFile(path) as archive:
            metadata = parse(archive.read(MEMBER), str(path))
        with warnings.catch_warnings():
            # Keras leaves layers without stored weights at their random initial values, and only warns.
            warnings.filterwarnings("error", "Skipping", UserWarning)
            return keras.saving.load_model(path, compile=False, safe_mode=True), metadata
    except InputError:
        raise
    except Exception as error:  # Keras, zipfile and HDF5 may raise anything on a malformed file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a model that can be loaded ({reason[:120]})") from None


def _canonical(path: Path, members: dict[str, bytes]) -> None:
    """Write a zip file again with `members` added, without dates and memory addresses."""
    rewritten = path.with_suffix(".canonical")
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(rewritten, "w") as copy:
            for name in sorted({*archive.namelist(), *members}):
                data = members[name] if name in members else archive.read(name)
                if name == "metadata.json":
                    data = _dump(json.loads(data) | {"date_saved": "1980-01-01@00:00:00"})
                elif name == "config.json":
                    data = _dump(_renumber(json.loads(data), {}))
                copy.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
        rewritten.replace(path)
    finally:
        rewritten.unlink(missing_ok=True)  # half-written, where the disk is full


def _dump(value) -> bytes:
    return json.dumps(value, indent=1).encode()


def _renumber(value, numbers: dict):
    """Replace memory addresses that Keras writes as `shared_object_id` by 1, 2 ... in order of appearance."""
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(item, len(numbers) + 1) if key == "shared_object_id" else _renumber(item, numbers)
            for key, item in value.items()
        }
    return [_renumber(item, numbers) for item in value] if isinstance(value, list) else value
