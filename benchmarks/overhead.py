"""What does it cost a training to be reproducible, to survive being killed, and to be seen in MLflow?

    python -m benchmarks.overhead [--rounds 2]

Times one epoch of params.yaml's training, validation included, in processes of their own, one after the other:

- alone: TensorFlow free to add in any order, nothing kept, nothing logged;
- the same with TensorFlow's deterministic operations;
- as the train stage does it: also the state written after the epoch, the run in MLflow, pictures of its predictions
  (after most epochs there are none).

Needs `dvc repro preprocess`. Writes benchmarks/results/overhead.md.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from pipeline import dataset, params, runtime, tracking, train
from pipeline.machine import describe

RESULT = Path("benchmarks/results/overhead.md")
VARIANTS = ("alone", "deterministic", "as the train stage does it")


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
        for variant in VARIANTS:
            command = [sys.executable, "-m", "benchmarks.overhead", "--variant", variant]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            measured.append((variant, float(done.stdout.split()[-1])))
    table = pd.DataFrame(measured, columns=["training", "seconds an epoch"]).groupby("training", sort=False)
    table = table["seconds an epoch"].agg(["median", "min", "max"])
    table["to alone"] = table["median"] / table["median"][VARIANTS[0]]
    text = "\n".join([describe("mlflow"), "", f"Seconds an epoch, {arguments.rounds} rounds.", "",
                      table.to_markdown(floatfmt=("", ".1f", ".1f", ".1f", ".3f"))])  # fmt: skip
    RESULT.write_text(text + "\n")
    print(text)


def seconds(variant: str) -> float:
    """Return the seconds from the end of the first epoch to that of the second one, which nothing is traced in."""
    settings = params.load()
    settings = settings.model_copy(update={"train": settings.train.model_copy(update={"epochs": 2})})
    free = mock.patch.object(tf.config.experimental, "enable_op_determinism")
    with free if variant == "alone" else mock.MagicMock():
        precision = runtime.configure(settings.train)
    samples = dataset.read_split("train"), dataset.read_split("validation")
    ends = []

    def timed(log_epoch):
        return lambda epoch, metrics: (ends.append(time.perf_counter()), log_epoch(epoch, metrics))[1]

    if variant != VARIANTS[-1]:
        train.train(*samples, settings.train, settings.preprocess.channels, timed(lambda *_: True))
    else:
        with tempfile.TemporaryDirectory(dir=".", prefix=".partial-") as folder:
            environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{Path(folder).absolute()}/mlflow.db"}
            with (
                mock.patch.dict("os.environ", environment),
                mock.patch.object(tracking, "UNFINISHED", Path(folder, "mlflow.json")),
                tracking.training_run(settings, precision, "overhead") as log,
            ):
                train.train(
                    *samples,
                    settings.train,
                    settings.preprocess.channels,
                    timed(log.epoch),
                    Path(folder, "state.npz"),
                    log.picture,
                )
    return ends[1] - ends[0]


if __name__ == "__main__":
    main()
