"""How much of the machine does a training step use, and does the input pipeline keep up?

    python -m benchmarks.throughput [--steps 10]

Measures in one process, one after the other and three times (medians count, since machines may be shared):

- the peak: a 4096x4096 matrix product in float32 and in bfloat16;
- a training step of params.yaml's network on one batch that is in memory, with Keras' batch normalization and with
  the fused one that `pipeline.train` uses;
- the input pipeline alone: crops drawn, augmented and batched;
- training as the pipeline does it, fed by that pipeline;
- what `nuclei_unet.training.resume` writes after each epoch.

The work of a step is counted from the layers: two operations a multiplication, three passes (forward, and backward
for inputs and weights). Needs `dvc repro preprocess`. Writes benchmarks/results/throughput.md.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from nuclei_unet.network import runtime, unet
from nuclei_unet.network.batch_norm import FusedBatchNormalization
from nuclei_unet.training import crops, resume
from nuclei_unet.training.fit import make_optimizer, measures
from pipeline import params
from pipeline.dataset import processed
from pipeline.machine import describe

RESULT = Path("benchmarks/results/throughput.md")
ROUNDS = 3


def main() -> None:
    """Write the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10, help="steps in each of three rounds")
    steps = parser.parse_args().steps
    settings = params.load()
    precision = runtime.configure(settings.train)
    size, batch, channels = settings.train.crop_size, settings.train.batch_size, settings.preprocess.channels
    source = crops.Crops(processed.read_split("train"), settings.train)
    drawn = crops.as_dataset(source.draw, range(10**9), settings.train, channels)
    # In the same form as `drawn`, otherwise a model would be traced twice.
    endless = drawn.take(1).cache().repeat()

    plain = compiled(channels, settings, keras.layers.BatchNormalization)
    fused = compiled(channels, settings, FusedBatchNormalization)
    flop = flop_per_crop(unet.build(channels, settings.train.targets, settings.train.model), size)
    measured = {
        "matrix product, float32": lambda: product("float32"),
        "matrix product, bfloat16": lambda: product("bfloat16"),
        "step, Keras' batch normalization": lambda: fit(plain, endless, steps),
        "step, fused batch normalization": lambda: fit(fused, endless, steps),
        "input pipeline alone": lambda: list(drawn.take(steps)),
        "training, fed by the pipeline": lambda: fit(fused, drawn, steps),
    }
    seconds = {name: [] for name in measured}
    for call in measured.values():  # traced and warm before anything counts
        call()
    for _ in range(ROUNDS):
        for name, call in measured.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)

    kept = seconds_to_keep(fused)
    rows = []
    for name, values in seconds.items():
        median = statistics.median(values)
        if name.startswith("matrix"):
            rows.append({"what": name, "GFLOP/s": 2 * 4096**3 / median / 1e9})
        else:
            each = median / steps / batch
            rate = float("nan") if "alone" in name else flop / each / 1e9
            rows.append({"what": name, "ms a crop": each * 1e3, "crops/s": 1 / each, "GFLOP/s": rate})
    table = pd.DataFrame(rows).set_index("what")
    peak = table["GFLOP/s"]["matrix product, " + ("bfloat16" if "bfloat16" in precision else "float32")]
    table["of the peak"] = table["GFLOP/s"] / peak
    rate = table["crops/s"]
    ratio = rate["step, fused batch normalization"] / rate["step, Keras' batch normalization"]
    starved = 1 - rate["training, fed by the pipeline"] / rate["step, fused batch normalization"]
    epoch = (settings.train.steps_per_epoch or -(-len(source) // batch)) * batch
    text = "\n".join(
        [
            describe(),
            "",
            f"{precision}, {settings.train.threads} threads, batches of {batch} crops of {size}x{size}, "
            f"{fused.count_params():,} weights, {flop / 1e9:.1f} GFLOP a crop. Medians of {ROUNDS} rounds of {steps} "
            "steps.",
            "",
            table.round(2).to_markdown(floatfmt=".2f"),
            "",
            f"Fused over Keras' batch normalization: {ratio:.2f} times the crops a second. "
            f"Fed by the input pipeline, which shares the cores, training is {starved:.0%} slower than from memory.",
            f"Keeping the state after an epoch takes {kept:.2f} s, {kept * rate.iloc[-1] / epoch:.1%} of an epoch.",
        ]
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text + "\n")
    print(text)


def compiled(channels: int, settings: params.Params, normalization: type) -> keras.Model:
    """Return the network of params.yaml, ready to train."""
    model = unet.build(channels, settings.train.targets, settings.train.model, normalization)
    model.compile(make_optimizer(settings.train, 1000), **measures(settings.train))
    return model


def fit(model: keras.Model, batches: tf.data.Dataset, steps: int) -> None:
    """Train for some steps."""
    model.fit(batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)


def seconds_to_keep(model: keras.Model) -> float:
    """Return the median time that the state of a training takes to be written."""
    stop = keras.callbacks.EarlyStopping()
    stop.set_model(model)
    stop.on_train_begin()
    stop.best_weights = model.get_weights()
    seconds = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        callback = resume.KeepState(Path(folder, "state.npz"), model.variables + model.optimizer.variables, stop, [])
        callback.set_model(model)
        callback.set_params({"epochs": 1})
        for _ in range(ROUNDS):
            started = time.perf_counter()
            callback.on_epoch_end(0)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def product(dtype: str) -> None:
    """Multiply two matrices of 4096x4096."""
    matrix = tf.cast(tf.fill((4096, 4096), 0.5), dtype)
    np.asarray(tf.reduce_sum(tf.cast(tf.matmul(matrix, matrix)[:1, :1], tf.float32)))


def flop_per_crop(model: keras.Model, size: int) -> float:
    """Count the operations of convolutions in a forward and a backward pass over one crop of `size` pixels' side."""
    counted = keras.models.clone_model(model, input_tensors=keras.Input((size, size, model.input_shape[-1])))
    total = 0
    for layer in counted.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
            # A convolution's kernel is applied at each output pixel, a transposed one's at each input pixel.
            transposed = isinstance(layer, keras.layers.Conv2DTranspose)
            _, height, width, _ = (layer.input if transposed else layer.output).shape
            total += 3 * 2 * np.prod(layer.kernel.shape) * height * width
    return float(total)


if __name__ == "__main__":
    main()
