"""Is every legal value of params.yaml one that the pipeline can work with? Parameter sets drawn from the schema itself.

    python -m benchmarks.fault_injection.legal [--sets 200] [--first 0] [--jobs 2]

Each set is drawn from its number alone: half of the values are the schema's own limits, the others lie between them.
Only what a run costs is kept small (`SMALL`: few images, few steps, narrow networks). All five stages run on images
drawn for this. A set is fine if all stages succeed and no score is NaN, or if one of them refuses it with one clear
line: a learning rate of 10 may well make the loss explode. A traceback, a NaN or a run without end is a fault of ours.
`benchmarks.fault_injection` has this as a row, and a test runs the first sets.
"""

import argparse
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import mlflow
import numpy as np
from tqdm import tqdm

from benchmarks.fault_injection.project import Failed
from pipeline import download, evaluate, layout, params, preprocess, stage, train, visualize
from pipeline.tools.project import copy_project

STAGES = {
    "download": download,
    "preprocess": preprocess,
    "train": train,
    "evaluate": evaluate,
    "visualize": visualize,
}
SETS = 200
SECONDS = 600  # of all stages together; the slowest set takes a small part of that
# What a run costs is not the question here: these keys are drawn from narrower schemas.
SMALL: dict[str, dict] = {
    "download.source": {"enum": ["synthetic"]},
    "download.synthetic.train": {"type": "integer", "minimum": 14, "maximum": 18},
    "download.synthetic.test": {"type": "integer", "minimum": 1, "maximum": 2},
    "preprocess.image_size": {
        "anyOf": [{"prefixItems": [{"type": "integer", "minimum": 16, "maximum": 64}] * 2}, {"type": "null"}]
    },
    # Beyond these no frame of so few images is left for one of the splits, which preprocess refuses.
    "preprocess.validation_fraction": {"type": "number", "minimum": 0.3, "maximum": 0.6},
    "train.threads": {"type": "integer", "minimum": 1, "maximum": 4},
    "train.batch_size": {"type": "integer", "minimum": 1, "maximum": 3},
    "train.epochs": {"type": "integer", "minimum": 1, "maximum": 2},
    "train.steps_per_epoch": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 2}, {"type": "null"}]},
    "train.model.filters": {"items": {"type": "integer", "minimum": 1, "maximum": 6}, "minItems": 2, "maxItems": 8},
    "evaluate.scales": {"items": {"type": "number", "minimum": 0.1, "maximum": 1.5}, "minItems": 1, "maxItems": 3},
    "visualize.examples": {"type": "integer", "minimum": 1, "maximum": 3},
    "visualize.dpi": {"type": "integer", "minimum": 30, "maximum": 60},
    "run.scheduler": {"type": "null"},  # no cluster is there
}


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
        low, high = schema.get("minItems", 1), schema.get("maxItems", 3)
        length = (low, low, low, high, *rng.integers(low, high + 1, 2))[rng.integers(6)]  # short lists cost less
        return [_value(schema["items"], rng) for _ in range(length)]
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


def work(folder: Path) -> None:
    """Run all stages in a copy of the project, and end this process with the exit code that they would end with.

    What they print goes to printed.txt. Called in a fork: TensorFlow starts once, not once for each set.
    """
    os.setsid()
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    printed = os.open("printed.txt", os.O_CREAT | os.O_WRONLY)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    code: object = 0
    try:
        for name, module in STAGES.items():
            sys.argv[0] = name
            stage.run(module.main)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


def outcome(folder: Path, code: int) -> str:
    """Return "works", or the line that refused the set. Raises Failed if neither is what happened."""
    printed = (folder / "printed.txt").read_text(errors="replace")
    if "Traceback" in printed:
        raise Failed(printed[-1500:])
    if code:
        errors = [line for line in printed.splitlines() if line.startswith("error: ")]
        if code != 1 or len(errors) != 1:
            raise Failed(f"exit code {code}: {printed[-800:]}")
        return errors[0]
    scores = json.loads((folder / layout.SCORES_FILE).read_text())
    wrong = [key for key, value in _leaves(scores) if isinstance(value, float) and not math.isfinite(value)]
    if wrong:
        raise Failed(f"no number: {', '.join(wrong)}")
    return "works"


def _leaves(tree: dict, where: str = ""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{where}/{key}")
        else:
            yield f"{where}/{key}", value


def run(numbers: Sequence[int], jobs: int) -> tuple[Counter[str], list[str]]:
    """Run sets; return how often each outcome came (refusals without their values), and what went wrong."""
    outcomes, wrong = Counter[str](), []
    waiting, running = list(reversed(numbers)), {}
    bar = tqdm(total=len(numbers), desc="parameter sets", unit="set", disable=None)
    with tempfile.TemporaryDirectory(prefix="legal-") as temporary:
        database = Path(temporary, "mlflow.db")
        mlflow.MlflowClient(f"sqlite:///{database}").search_experiments()  # makes its tables, once for all
        while waiting or running:
            while waiting and len(running) < jobs:
                number = waiting.pop()
                folder = Path(temporary, f"{number}")
                copy_project(Path.cwd(), folder)
                shutil.copy(database, folder)
                path = folder / layout.PARAMS
                path.write_text(params.override(path.read_text(), draw(number)))
                params.load(path)  # legal, as promised
                child = os.fork()
                if not child:
                    work(folder)
                running[child] = number, folder, time.monotonic() + SECONDS
            for child, (number, folder, end) in list(running.items()):
                ended, status = os.waitpid(child, os.WNOHANG)
                late = not ended and time.monotonic() > end
                if late:
                    os.killpg(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                if not ended and not late:
                    continue
                del running[child]
                bar.update()
                try:
                    if late:
                        raise Failed(f"not done after {SECONDS} s")
                    said = outcome(folder, os.waitstatus_to_exitcode(status))
                    outcomes[re.sub(r"[-+]?\d\S*", "…", said)[:110]] += 1
                except Failed as error:
                    wrong.append(f"set {number}: {error}")
                    tqdm.write(wrong[-1], file=sys.stderr)
                shutil.rmtree(folder)
            time.sleep(0.1)
    bar.close()
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
        raise SystemExit(f"error: {len(wrong)} of {arguments.sets} legal parameter sets ended otherwise")


if __name__ == "__main__":
    main()
