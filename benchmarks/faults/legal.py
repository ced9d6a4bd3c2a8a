"""Is every legal value of params.yaml one that the pipeline can work with? Parameter sets drawn from the schema itself.

    python -m benchmarks.faults.legal [--sets 200] [--first 0] [--jobs 2]

Each set is drawn from its number alone: half of the values are the schema's own limits, the others lie between them.
Only what a run costs is kept small (`SMALL`: few images, few steps, narrow networks). All five stages run on images
drawn for this. A set is fine if all stages succeed and no score is NaN, or if one of them refuses it with one clear
line: a learning rate of 10 may well make the loss explode. A traceback, a NaN or a run without end is a fault of ours.

`benchmarks.faults` has this as a row, and tests run the first sets.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipeline import layout, params, process
from pipeline.tools.project import copy_project

STAGES = ("download", "preprocess", "train", "evaluate", "visualize")
SETS = 200
SECONDS = 600  # of all stages together; the slowest set takes a small part of that
# What a run costs is not the question here: these keys are drawn from narrower schemas.
SMALL: dict[str, dict] = {
    "download.source": {"enum": ["synthetic"]},
    "download.synthetic.train": {"type": "integer", "minimum": 12, "maximum": 16},
    "download.synthetic.test": {"type": "integer", "minimum": 1, "maximum": 2},
    "preprocess.image_size": {
        "anyOf": [{"prefixItems": [{"type": "integer", "minimum": 16, "maximum": 64}] * 2}, {"type": "null"}]
    },
    # Beyond these no frame of so few images is left for one of the splits, which preprocess refuses.
    "preprocess.validation_fraction": {"type": "number", "minimum": 0.3, "maximum": 0.7},
    "train.threads": {"type": "integer", "minimum": 1, "maximum": 4},
    "train.batch_size": {"type": "integer", "minimum": 1, "maximum": 3},
    "train.epochs": {"type": "integer", "minimum": 1, "maximum": 2},
    "train.steps_per_epoch": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 2}, {"type": "null"}]},
    "train.model.filters": {"items": {"type": "integer", "minimum": 1, "maximum": 6}, "minItems": 2, "maxItems": 8},
    "evaluate.scales": {"items": {"type": "number", "minimum": 0.1, "maximum": 1.5}, "minItems": 1, "maxItems": 3},
    "visualize.examples": {"type": "integer", "minimum": 1, "maximum": 3},
    "visualize.dpi": {"type": "integer", "minimum": 30, "maximum": 60},
}
# Runs all stages in one process, since each start of TensorFlow takes seconds. Progress bars and logs stay off.
RUN = """
import importlib, sys
from pipeline import stage
for name in sys.argv[1:]:
    sys.argv[0] = name
    stage.run(importlib.import_module(f"pipeline.{name}").main)
"""


def draw(number: int) -> dict[str, object]:
    """Return set `number` as {"train.seed": 3, ...}: legal values for all keys of params.yaml."""
    rng = np.random.default_rng(number)
    schema = params.Params.model_json_schema()
    values = dict(_draw(schema, schema["$defs"], "", rng))
    # What the schema cannot say: rules over several values.
    values["train.targets"] = ["foreground", *rng.permutation(["border", "distance"])[: rng.integers(3)].tolist()]
    for key in ("train.augment.zoom", "train.augment.gamma"):
        values[key] = sorted(values[key])
    if values["train.model.encoder"] != "none":
        values["train.model.stem_stride"] = 2
        values["train.model.filters"] = values["train.model.filters"][:4]
    levels = len(values["train.model.filters"])
    values["train.model.dropout"] = [float(rng.choice([0, 0.5, 0.999])) for _ in range(levels)]
    multiple = values["train.model.stem_stride"] * 2 ** (levels - (values["train.model.encoder"] == "none"))
    values["train.crop_size"] = max(multiple, 32, int(rng.integers(1, 3)) * multiple if multiple < 64 else 0)
    return values


def _draw(schema: dict, definitions: dict, where: str, rng: np.random.Generator):
    """Yield (key, value) for all keys below a schema."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if "properties" in schema:
        for key, part in schema["properties"].items():
            yield from _draw(part, definitions, f"{where}.{key}".lstrip("."), rng)
    else:
        yield where, _value(SMALL.get(where, schema), rng)


def _value(schema: dict, rng: np.random.Generator) -> object:
    """Return a legal value; of a number, each limit has a quarter of the chance."""
    if "anyOf" in schema:
        return _value(schema["anyOf"][rng.integers(len(schema["anyOf"]))], rng)
    if "enum" in schema:
        return schema["enum"][rng.integers(len(schema["enum"]))]
    if "prefixItems" in schema:
        return [_value(part, rng) for part in schema["prefixItems"]]
    if "items" in schema:
        return [
            _value(schema["items"], rng)
            for _ in range(rng.integers(schema.get("minItems", 1), schema.get("maxItems", 3) + 1))
        ]
    if schema.get("type") == "null":
        return None
    if schema.get("type") == "boolean":
        return bool(rng.integers(2))
    low, high = (schema.get(name, schema.get(f"exclusive{name.title()}")) for name in ("minimum", "maximum"))
    whole = schema["type"] == "integer"
    step = 1 if whole else (high - low) * 1e-6  # off a limit that is not legal itself
    low, high = low + step * ("exclusiveMinimum" in schema), high - step * ("exclusiveMaximum" in schema)
    where = rng.integers(4)
    value = low if where == 0 else high if where == 1 else rng.uniform(low, high)
    return int(value) if whole else float(value)


def outcome(folder: Path, number: int) -> str:
    """Run all stages with set `number` in a copy of the project; return "works", or the line that refuses the set.

    Raises AssertionError that says what went wrong otherwise.
    """
    path = folder / layout.PARAMS
    path.write_text(params.override(path.read_text(), draw(number)))
    params.load(path)  # legal, as promised
    environment = process.environment(
        process.OUTSIDE, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db", PYTHONPATH=str(folder)
    )
    command = [sys.executable, "-c", RUN, *STAGES]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"set {number}: not done after {SECONDS} s") from None
    printed = done.stdout + done.stderr
    assert "Traceback" not in printed, f"set {number}: {printed[-1500:]}"
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 1 and len(errors) == 1, f"set {number}: exit code {done.returncode}: {printed[-800:]}"
        return errors[0]
    scores = json.loads((folder / layout.SCORES_FILE).read_text())
    wrong = [key for key, value in _leaves(scores) if not isinstance(value, str | None) and not math.isfinite(value)]
    assert not wrong, f"set {number}: no number: {', '.join(wrong)}"
    return "works"


def _leaves(tree: dict, where: str = ""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{where}/{key}")
        else:
            yield f"{where}/{key}", value


def run(numbers: range, jobs: int) -> tuple[Counter[str], list[str]]:
    """Run sets; return how often each outcome came (refusals without their numbers), and what went wrong."""
    outcomes, wrong = Counter[str](), []
    with tempfile.TemporaryDirectory(prefix="legal-") as temporary:
        fresh = Path(temporary, "fresh")
        copy_project(Path.cwd(), fresh)

        def one(number: int) -> str:
            folder = Path(temporary, f"{number}")
            copy_project(Path.cwd(), folder)
            return outcome(folder, number)

        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(one, number) for number in numbers]
            for future in tqdm(futures, "parameter sets", unit="set", disable=None):
                try:
                    outcomes[future.result().split(" (")[0][:100]] += 1
                except AssertionError as error:
                    wrong.append(str(error))
                    tqdm.write(str(error))
    return outcomes, wrong


def main() -> None:
    """Run the sets and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", type=int, default=SETS)
    parser.add_argument("--first", type=int, default=0, help="number of the first set")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    outcomes, wrong = run(range(arguments.first, arguments.first + arguments.sets), arguments.jobs)
    for name, count in outcomes.most_common():
        print(f"{count:4}  {name}")
    if wrong:
        raise SystemExit(f"error: {len(wrong)} of {arguments.sets} legal parameter sets are not worked with")


if __name__ == "__main__":
    main()
