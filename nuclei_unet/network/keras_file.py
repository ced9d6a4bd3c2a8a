"""A model on disk: a .keras file in canonical form, so that the same weights and recipe give the same bytes."""

import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras

from nuclei_unet import recipe
from nuclei_unet.errors import InputError
from nuclei_unet.recipe import Recipe

RECIPE = "recipe.json"  # the member of the zip that holds the recipe; Keras ignores it


def save(model: keras.Model, path: Path, made_by: Recipe) -> None:
    """Write a model (not compiled) with its recipe. Plain `keras.saving.load_model` reads it, too."""
    model.save(path)
    _write(path, path, {RECIPE: made_by.dump()})


def load(path: Path) -> keras.Model:
    """Load a trained model. Raises InputError that names the file if it is missing, damaged, or would run code."""
    _check(path)
    try:
        with warnings.catch_warnings():
            # Keras leaves layers without stored weights at their random initial values, and only warns.
            warnings.filterwarnings("error", "Skipping", UserWarning)
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras and HDF5 may raise anything on a malformed file
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a model that can be loaded ({reason[:120]}); run `dvc repro train`") from None


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in a model file. Raises InputError that names the file if it has none."""
    _check(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(RECIPE).file_size > recipe.MAX_BYTES:
                raise InputError(f"{path}: its recipe is larger than {recipe.MAX_BYTES:,} bytes; run `dvc repro`")
            data = archive.read(RECIPE)
    except KeyError:
        raise InputError(f"{path}: has no recipe, so an older version wrote it; run `dvc repro`") from None
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{path}: damaged ({error}); run `dvc repro train`") from None
    return recipe.parse(data, str(path))


def copy_with_recipe(source: Path, target: Path, made_by: Recipe) -> None:
    """Write the model of file `source` to `target` with another recipe; the weights stay as they are."""
    _check(source)
    _write(source, target, {RECIPE: made_by.dump()})


def _check(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: {'damaged' if path.exists() else 'no such file'}; run `dvc repro train`")


def _write(source: Path, target: Path, members: Mapping[str, bytes]) -> None:
    """Write zip `source` with `members` replaced or added to `target`, in canonical form; both may be one file."""
    rewritten = target.with_suffix(".canonical")
    try:
        with zipfile.ZipFile(source) as archive, zipfile.ZipFile(rewritten, "w") as copy:
            for name in sorted({*archive.namelist(), *members}):
                data = members[name] if name in members else archive.read(name)
                if name == "metadata.json":
                    data = _dump(json.loads(data) | {"date_saved": "1980-01-01@00:00:00"})
                elif name == "config.json":
                    data = _dump(_renumber(json.loads(data), {}))
                copy.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
        rewritten.replace(target)
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
