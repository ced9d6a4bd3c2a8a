"""The trained model on disk: a .keras file in canonical form, so that the same weights give the same bytes."""

import json
import warnings
import zipfile
from pathlib import Path

import keras

from nuclei_unet.errors import InputError

MODEL = Path("models/model.keras")


def save(model: keras.Model, path: Path) -> None:
    """Write a model that is not compiled; it loads with plain `keras.saving.load_model`."""
    model.save(path)
    rewritten = path.with_suffix(".canonical")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(rewritten, "w") as target:
        for name in sorted(source.namelist()):
            data = source.read(name)
            if name == "metadata.json":
                data = _dump(json.loads(data) | {"date_saved": "1980-01-01@00:00:00"})
            elif name == "config.json":
                data = _dump(_renumber(json.loads(data), {}))
            target.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    rewritten.replace(path)


def load(path: Path = MODEL) -> keras.Model:
    """Load a trained model. Raises InputError that names the file if it is missing, damaged, or would run code."""
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: {'damaged' if path.exists() else 'no such file'}; run `dvc repro train`")
    try:
        with warnings.catch_warnings():
            # Keras leaves layers that it finds no weights for as they are drawn at random, and says only this.
            warnings.filterwarnings("error", "Skipping", UserWarning)
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # whatever a strange file leads Keras and HDF5 to
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a model that can be loaded ({reason[:120]}); run `dvc repro train`") from None


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
