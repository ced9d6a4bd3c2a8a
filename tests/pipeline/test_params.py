"""params.yaml: the committed one loads, and every mistake becomes one line that names file and key."""

import json
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from nuclei_unet.errors import InputError
from pipeline import params
from tests import PARAMS
from tests.refusals import refused


def changed(tmp_path, key, value):
    """Write the committed parameters with one key (dotted) set to `value`, or removed if that is `...`."""
    yaml, path = YAML(), tmp_path / "params.yaml"
    content = yaml.load(PARAMS)
    *sections, last = key.split(".")
    section = content
    for name in sections:
        section = section[name]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    yaml.dump(content, path)
    return path


def fault(path) -> str:
    message = refused(None, params.load, path)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_committed_parameters_load_as_written():
    loaded = params.load(PARAMS)
    written = YAML(typ="safe", pure=True).load(PARAMS)
    assert json.loads(json.dumps(params.flatten(loaded))) == params.flatten(written)


@pytest.mark.parametrize(
    ("key", "value", "starts", "reason"),
    [
        ("train.epoch", 5, "train.epoch: ", "unknown key"),
        ("train.model.filters", ..., "train.model.filters: ", "missing"),
        ("visualize", ..., "visualize: ", "missing"),
        ("train.epochs", "5", "train.epochs: ", "valid integer .found 5."),
        ("train.epochs", 5.0, "train.epochs: ", "valid integer"),
        ("train.epochs", -1, "train.epochs: ", "greater than or equal to 1 .found -1."),
        ("train.augment.flip", 1, "train.augment.flip: ", "valid boolean"),
        ("train.learning_rate", float("nan"), "train.learning_rate: ", "finite"),
        ("train.optimizer", "sgd", "train.optimizer: ", "'adam' or 'adamw' .found sgd."),
        ("preprocess.on_fault.empty_mask", "ignore", "preprocess.on_fault.empty_mask: ", "'skip' or 'fail'"),
        ("download.source", "line\nbreak", "download.source: ", "found line break"),
        # Lists, and values that do not fit together.
        ("preprocess.percentiles", [0.5], "preprocess.percentiles.1: key is missing", ""),
        ("preprocess.image_size", [8, 256], "preprocess.image_size.0: ", ""),
        ("train.targets", ["foreground", "edge"], "train.targets.1: ", ""),
        ("train.targets", ["distance", "foreground"], "train.targets: targets must start with foreground", ""),
        ("train.augment.zoom", [2, 0.5], "train.augment.zoom: the lower limit comes first", ""),
        ("train.model.dropout", [0, 0.1], "train.model: dropout needs one value for each entry of filters", ""),
        ("train.crop_size", 250, "train: crop_size must be a multiple of 16", ""),
        ("preprocess.image_size", [128, 128], "file: preprocess.image_size and train.diameter both", ""),
        ("train.seed", 2**40, "train.seed", ""),
        ("train.model.filters", [2**20] * 4, "train.model.filters", ""),
        ("evaluate.augmentations", [[1.0, n % 8] for n in range(1000)], "evaluate.augmentations", ""),
    ],
)
def test_a_wrong_value_is_named(tmp_path, key, value, starts, reason):
    message = fault(changed(tmp_path, key, value))
    assert message.startswith(starts) and re.search(reason, message)


def numbers(schema, definitions, where=""):
    """Yield the place and the limits of every number in a JSON schema, and of every list without a fixed length."""
    if "$ref" in schema:
        yield from numbers(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions, where)
    if schema.get("type") in ("integer", "number") and "enum" not in schema:
        yield where, {"minimum", "exclusiveMinimum"} & set(schema) and {"maximum", "exclusiveMaximum"} & set(schema)
    if schema.get("type") == "array" and "prefixItems" not in schema:
        yield where, "maxItems" in schema or "enum" in schema["items"]
    for key, part in schema.get("properties", {}).items():
        yield from numbers(part, definitions, f"{where}.{key}".lstrip("."))
    items = [schema["items"]] if "items" in schema else []
    for part in (*schema.get("anyOf", []), *schema.get("prefixItems", []), *items):
        yield from numbers(part, definitions, where)


def test_every_number_has_a_lower_and_an_upper_limit():
    schema = params.Params.model_json_schema()
    found = list(numbers(schema, schema["$defs"]))
    assert len(found) > 40
    assert [where for where, limited in found if not limited] == []


ALIASES = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"train: [1, 2", "not valid YAML: "),
        (b"train: {}\ntrain: {}", "not valid YAML: "),
        (b"train: !!python/object/apply:os.getcwd []", "not valid YAML: "),
        (b"train: 2018-99-99", "not valid YAML: "),
        ("# für".encode("latin-1"), "not valid YAML: 'utf-8' codec"),
        (b"# nothing", "file: "),
        (b"- 1", "file: "),
        (b"? [a, b]\n: 1\n", "a key is a list"),
        ("\n".join(ALIASES).encode(), "YAML aliases"),
        # All mistakes at once.
        (PARAMS.read_bytes().replace(b"train:\n", b"train:\n  speed: 3\n").replace(b"dpi:", b"dots:"),
         "train.speed: unknown key.*visualize.dpi: key is missing.*visualize.dots: unknown"),
        (None, "no such file"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, text, said):
    path = tmp_path / "params.yaml"
    if text is not None:
        path.write_bytes(text)
    assert re.match(said, fault(path))


def test_exponents_without_a_dot_are_numbers(tmp_path):
    # A string in YAML 1.1, where DVC reads a number.
    path = tmp_path / "params.yaml"
    text = PARAMS.read_text(encoding="utf-8")
    path.write_text(re.sub(r"learning_rate: \S+", "learning_rate: 1e-3", text), encoding="utf-8")
    assert params.load(path).train.learning_rate == 0.001


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.dates())
values = st.recursive(scalars, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(scalars, v, max_size=3)))
keys = st.sampled_from([*params.flatten(params.load(PARAMS)), "train", "evaluate", "new"])


@given(keys, values)
@hypothesis_settings(max_examples=40)
def test_any_value_of_a_key_is_taken_or_named(tmp_path_factory, key, value):
    path = changed(tmp_path_factory.getbasetemp(), key, value)
    try:
        params.load(path)
    except InputError as error:
        # What a rule over several keys refuses is named by its section.
        starts = (key.split(".")[0], "not valid YAML", "a key is a list, a mapping or a date")
        assert str(error).removeprefix(f"{path}: ").startswith(starts) and "\n" not in str(error)


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_file_is_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    fault(path)


def test_the_tutorials_network_is_reachable_through_parameters(tmp_path):
    from nuclei_unet.network import unet

    printed = subprocess.run(["make", "-n", "tutorial"], cwd=PARAMS.parent, capture_output=True, text=True, check=True)
    values = dict(re.findall(r"-S '([a-z_.]+)=([^']*)'", printed.stdout))
    values = {key: YAML(typ="safe").load(value) for key, value in values.items()}
    (tmp_path / "params.yaml").write_text(params.override(PARAMS.read_text(), values))
    settings = params.load(tmp_path / "params.yaml")
    network = unet.build(settings.preprocess.channels, settings.train.targets, settings.train.model)
    # As many as the tutorial prints of its own.
    assert network.count_params() == 1_941_105
    assert settings.preprocess.image_size == (128, 128) and settings.train.loss == "bce"
