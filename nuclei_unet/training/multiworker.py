"""Train one network on several machines, with the crops, steps and results of one, up to rounding.

Keras' `fit` cannot do it (keras-team/keras#20585), so this is a loop in its place. Each worker draws its share of each
batch; gradients, the statistics of batch normalization and the measured losses are summed over all. Only the chief
validates and writes; the others get from it what they need to take the same decisions.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import keras
import tensorflow as tf

from nuclei_unet.errors import InputError
from nuclei_unet.settings import TrainSettings
from nuclei_unet.training import crops, machines, resume
from nuclei_unet.training.machines import Team


class KeepSharedState(resume.KeepState):
    """`KeepState` of several workers: the chief keeps the state, and all start from its.

    To `kept` it adds the number of each epoch whose state is certainly written.
    """

    def __init__(self, strategy, team: Team, kept: list[int], path: Path, variables: list, stop, rows: list[dict]):
        if others := machines.same(strategy, team, path.stem):
            raise InputError(
                f"train.strategy: worker {', '.join(map(str, others))} has other parameters, code, data, packages or "
                "precision than worker 0; bring all to the same commit and data"
            )
        self.strategy, self.team, self.kept = strategy, team, kept
        content = machines.share(strategy, team, path.read_bytes() if team.chief and path.exists() else b"")
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            if content:
                copy.write_bytes(content)
            super().__init__(path if team.chief else copy, variables, stop, rows)
        if rows:
            kept.append(len(rows))

    def on_epoch_end(self, epoch, logs=None):
        """Write the state if this is the chief; else wait until it has."""
        if self.team.chief:
            super().on_epoch_end(epoch, logs)
            self.kept.append(epoch + 1)
        machines.share(self.strategy, self.team)
        if not self.team.chief:
            self.kept.append(epoch + 1)


class ShareLogs(keras.callbacks.Callback):
    """Give all workers the chief's measurements of an epoch. Must come before what decides by them."""

    def __init__(self, strategy, team: Team):
        super().__init__()
        self.strategy, self.team = strategy, team

    def on_epoch_end(self, epoch, logs=None):
        """Replace the logs."""
        logs.update(json.loads(machines.share(self.strategy, self.team, json.dumps(logs).encode())))


def fit(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    source: crops.Crops,
    measures: dict,
    settings: TrainSettings,
    steps: int,
    done: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Train a compiled model as `model.fit` does, from epoch number `done` on; `measures` are as for `compile`."""
    measured = _names(measures)
    step = _step(model, strategy, measures)
    batches = iter(share_of_batches(strategy, source, settings, model.input_shape[-1], steps, done))
    shared = keras.callbacks.CallbackList(
        callbacks, add_history=False, model=model, epochs=settings.epochs, steps=steps, verbose=0
    )
    model.stop_training = False
    shared.on_train_begin()
    for epoch in range(done, settings.epochs):
        shared.on_epoch_begin(epoch)
        sums, logs = 0, {}
        for number in range(steps):
            shared.on_train_batch_begin(number)
            batch = strategy.experimental_distribute_values_from_function(lambda _: next(batches))
            sums = sums + strategy.experimental_local_results(step(*batch))[0].numpy().astype(float)
            # Of the epoch so far, as Keras has it.
            logs = dict(zip(measured, (sums / (number + 1)).tolist(), strict=True))
            shared.on_train_batch_end(number, logs)
        shared.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    shared.on_train_end()


def share_of_batches(
    strategy: tf.distribute.Strategy, source: crops.Crops, settings: TrainSettings, channels: int, steps: int, done: int
) -> tf.data.Dataset:
    """Return this worker's share of all batches, one batch for each of its devices in turn."""
    devices = len(strategy.extended.worker_devices)
    size = settings.batch_size // strategy.num_replicas_in_sync
    share = size * devices
    first = share * strategy.extended._id_in_cluster

    def draw(number: int):
        """Draw crop `number` of this worker's: its share of the first batch, of the second ..."""
        return source.draw(number // share * settings.batch_size + first + number % share)

    numbers = range(done * steps * share, settings.epochs * steps * share)
    return crops.as_dataset(draw, numbers, settings.model_copy(update={"batch_size": size}), channels)


@contextlib.contextmanager
def watched(strategy: tf.distribute.Strategy, team: Team, kept: list[int]) -> Iterator[None]:
    """Raise InputError instead of TensorFlow's error if a worker is gone. `kept` is that of `KeepSharedState`."""
    try:
        yield
    except tf.errors.OpError as error:
        numbers = machines.gone(team, error)
        if not numbers:
            raise
        who = ", ".join(f"worker {number} ({team.addresses[number]})" for number in numbers)
        go_on = f"they go on after epoch {kept[-1]}" if kept else "they begin anew"
        raise InputError(
            f"{who} {'is' if len(numbers) == 1 else 'are'} gone; start all workers again and {go_on}"
        ) from None
    # All must have what the last step sent them before one ends. If one has ended, it had.
    with contextlib.suppress(tf.errors.OpError):
        machines.share(strategy, team)
    machines.leave(strategy)


def _names(measures: dict) -> list[str]:
    """Return what `_step` measures, in its order and with Keras' names."""
    return [
        "loss",
        *(f"{target}_loss" for target in _several(measures)),
        *(f"{target}_{metric.__name__}" for target, metrics in measures["metrics"].items() for metric in metrics),
    ]


def _several(measures: dict) -> tuple[str, ...]:
    """Return the targets whose losses are logged one by one: none if there is only one, as in Keras."""
    return tuple(measures["loss"]) if len(measures["loss"]) > 1 else ()


def _step(model: keras.Model, strategy: tf.distribute.Strategy, measures: dict):
    """Return the function that does one step on a batch and returns the means that it measured, (N,) a device."""
    replicas = strategy.num_replicas_in_sync

    def on_one_device(image, truth):
        with tf.GradientTape() as tape:
            maps = model(image, training=True)
            losses = [tf.reduce_mean(loss(truth[name], maps[name])) for name, loss in measures["loss"].items()]
            loss = tf.add_n(losses)
            # The optimizer sums the gradients of all devices.
            part = loss / replicas
        model.optimizer.apply(tape.gradient(part, model.trainable_variables), model.trainable_variables)
        metrics = [
            tf.reduce_mean(metric(truth[name], maps[name]))
            for name, metrics in measures["metrics"].items()
            for metric in metrics
        ]
        means = tf.stack([loss, *(losses if _several(measures) else ()), *metrics])
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, means)

    @tf.function
    def step(image, truth):
        return strategy.run(on_one_device, (image, truth))

    return step
