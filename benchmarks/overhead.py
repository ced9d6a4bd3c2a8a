"""What does it cost a training to be reproducible, to survive being killed, and to be seen in MLflow?

    python -m benchmarks.overhead [--rounds 2]

Times epochs of params.yaml's training, validation included, in processes of their own, one after the other:

- half an epoch with TensorFlow free to add in any order, and with its deterministic operations;
- epochs of one step, alone, and with all that the train stage adds: the state written after each epoch, the run in
  MLflow, pictures of what the network sees after some. One step is enough: longer epochs add the same cost.

Needs `dvc repro preprocess`. Writes benchmarks/results/overhead.md.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from nuclei_unet.network import runtime
from nuclei_unet.training import fit
from pipeline import params
from pipeline.dataset import processed
from pipeline.machine import describe
from pipeline.tracking import run
from pipeline.tracking.mirror import training_run

RESULT = Path("benchmarks/results/overhead.md")
# Pictures come after epochs 1, 2, 5, 10 ...: in 20 epochs as often as in the 30 of a whole training.
VARIANTS = {"any order": (2, 50), "deterministic": (2, 50), "one step": (20, 1), "one step, kept and logged": (20, 1)}


def main() -> None:
    """Write the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        print(f"\n{seconds(arguments.variant)}")
        return
    measured = []
    for _ in tqdm(range(arguments.rounds), "rounds", disable=None):
        for variant, (_, steps) in VARIANTS.items():
            command = [sys.executable, "-m", "benchmarks.overhead", "--variant", variant]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            measured.append((variant, steps, float(done.stdout.split()[-1])))
    table = pd.DataFrame(measured, columns=["training", "steps", "seconds"]).groupby("training", sort=False)
    table = table.agg(
        steps=("steps", "first"), median=("seconds", "median"), min=("seconds", "min"), max=("seconds", "max")
    )
    free, same, short, kept = table["median"]
    steps = params.load().train.steps_per_epoch
    whole = short + (same - short) * steps / VARIANTS["deterministic"][1]
    lines = (
        f"Seconds an epoch, {arguments.rounds} rounds; pictures after every fourth epoch, about.",
        table.to_markdown(floatfmt=".2f"),
        f"Deterministic operations take {same / free - 1:+.1%}. Keeping the state, MLflow and pictures take "
        f"{kept - short:.2f} s an epoch: {(kept - short) / whole:+.1%} of one with {steps} steps.",
    )
    RESULT.write_text("\n\n".join([describe("mlflow"), *lines]) + "\n")
    print(RESULT.read_text())


def seconds(variant: str) -> float:
    """Return the mean seconds of an epoch, without the first one, in which TensorFlow traces everything."""
    epochs, steps = VARIANTS[variant]
    settings = params.load()
    short = settings.train.model_copy(update={"epochs": epochs, "steps_per_epoch": steps})
    settings, ends = settings.model_copy(update={"train": short}), []

    def log_nothing(*_):
        return True

    def timed(log_epoch):
        return lambda epoch, metrics: (ends.append(time.perf_counter()), log_epoch(epoch, metrics))[1]

    with ExitStack() as stack:
        if variant == "any order":
            stack.enter_context(mock.patch.object(tf.config.experimental, "enable_op_determinism"))
        precision = runtime.configure(settings.train)
        log_epoch, more = log_nothing, ()
        if "logged" in variant:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=".", prefix=".partial-"))).absolute()
            stack.enter_context(mock.patch.dict("os.environ", {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}))
            stack.enter_context(mock.patch.object(run, "UNFINISHED", folder / "mlflow.json"))
            log = stack.enter_context(training_run(settings, precision, "overhead"))
            log_epoch, more = log.epoch, (folder / "state.npz", log.picture)
        samples = processed.read_split("train"), processed.read_split("validation")
        fit.train(*samples, settings.train, settings.preprocess.channels, timed(log_epoch), *more)
    return (ends[-1] - ends[0]) / (epochs - 1)


if __name__ == "__main__":
    main()
