"""The schema of params.yaml: one frozen section per stage, and an error that names the key when a value is wrong."""

import json
from collections.abc import Collection, Mapping
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import BaseModel, Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nuclei_unet.errors import InputError
from nuclei_unet.settings import Count, NormalizeSettings, PredictSettings, Section, Seed, TrainSettings
from pipeline import layout


class SyntheticSettings(Section):
    """Size of the synthetic data set (`download.source: synthetic`)."""

    train: Annotated[int, Field(ge=4, le=1_000_000)]
    test: Count
    seed: Seed


class DownloadSettings(Section):
    """Which images and labels the pipeline starts from."""

    source: Literal["bbbc038", "bbbc038-fixed", "synthetic"]
    synthetic: SyntheticSettings


Reaction = Literal["skip", "fail"]


class FaultSettings(Section):
    """What happens at each kind of data fault: `skip` leaves out the mask or image at fault, `fail` stops."""

    unreadable_image: Reaction
    unreadable_mask: Reaction
    mask_shape: Reaction
    empty_mask: Reaction
    overlapping_masks: Reaction
    no_nuclei: Reaction
    duplicate_image: Reaction


class PreprocessSettings(NormalizeSettings):
    """How raw images become model input, and which of them are held out for validation."""

    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed
    on_fault: FaultSettings


class VisualizeSettings(Section):
    """What the figures show."""

    examples: Annotated[int, Field(ge=1, le=100)]
    dpi: Annotated[int, Field(ge=30, le=600)]


class VerifySettings(Section):
    """What `make verify` allows on a machine of another kind, and `make gate` between branches."""

    score_tolerance: Annotated[float, Field(ge=0, le=1)]
    gate_tolerance: Annotated[float, Field(ge=0, le=1)]


class TrackSettings(Section):
    """What MLflow's model registry does."""

    champion_margin: Annotated[float, Field(ge=0, le=1)]


class RunSettings(Section):
    """Where stages work; it changes no result."""

    scheduler: Annotated[str, Field(max_length=200)] | None


# Sections that affect no output of a stage.
AROUND = ("track", "verify", "run")


class Params(Section):
    """All of params.yaml."""

    download: DownloadSettings
    preprocess: PreprocessSettings
    train: TrainSettings
    evaluate: PredictSettings
    visualize: VisualizeSettings
    track: TrackSettings
    verify: VerifySettings
    run: RunSettings

    @pydantic.model_validator(mode="after")
    def one_size(self):
        """Refuse to resize images twice."""
        if self.preprocess.image_size is not None and self.train.diameter is not None:
            raise ValueError("preprocess.image_size and train.diameter both say how large nuclei are; set one to null")
        return self


def load(path: Path = layout.PARAMS) -> Params:
    """Read and check a parameter file.

    YAML 1.2 (as DVC reads it), so `1e-3` is a number. Raises InputError that names the file and each wrong key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        # Settings need no aliases, and a few nested ones can fill any memory.
        if any(event.__class__.__name__ == "AliasEvent" for event in YAML(typ="safe", pure=True).parse(text)):
            raise InputError(f"{path}: YAML aliases (*name) are not allowed here; write the value out")
        raw = YAML(typ="safe", pure=True).load(text)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run from the project's folder") from None
    except (YAMLError, ValueError, RecursionError) as error:  # ValueError: !!int abc, 2018-99-99, not UTF-8
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    try:
        # As JSON: there, strict checks accept a list for a tuple, but still not "5" for 5.
        return Params.model_validate_json(json.dumps(raw, default=str))
    except TypeError:
        raise InputError(f"{path}: a key is a list, a mapping or a date; keys must be names") from None
    except pydantic.ValidationError as error:
        faults = (f"{'.'.join(str(part) for part in e['loc']) or 'file'}: {_reason(e)}" for e in error.errors())
        raise InputError(f"{path}: {' '.join('; '.join(faults).split())}") from None


def first_of(changed: dict[str, object], count: int) -> list[str]:
    """Return `key=value` of the first `count` parameters, and how many more there are."""
    more = [f"and {len(changed) - count} more"] if len(changed) > count else []
    return [*(f"{key}={value}" for key, value in list(changed.items())[:count]), *more]


def override(text: str, values: dict[str, object]) -> str:
    """Return the text of a parameter file with other values, {'train.epochs': 2}; comments and order stay.

    Raises InputError for a key that the file does not have.
    """
    yaml = YAML()
    yaml.width = 1000
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(text)
    for key, value in values.items():
        *parents, last = key.split(".")
        section = document
        for name in parents:
            section = section.get(name, {})
        if last not in section:
            raise InputError(f"{key}: no such key in the parameter file")
        section[last] = value
    stream = StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _reason(error: dict) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key; remove it or check its spelling"
    if error["type"] == "missing":
        return "key is missing"
    return f"{error['msg'].removeprefix('Value error, ')} (found {str(error['input'])[:60]})"


def flatten(section: BaseModel | Mapping, prefix: str = "", without: Collection[str] = ()) -> dict[str, object]:
    """Return {'train.model.filters': (32, 64), ...} for all keys below `section` except those in `without`.

    `section` may also be what YAML reads of a parameter file of any version.
    """
    flat: dict[str, object] = {}
    for key, value in (section if isinstance(section, Mapping) else section.model_dump(exclude=set(without))).items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
