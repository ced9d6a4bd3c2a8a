"""Train one network on several machines, with the crops, steps and results of one, up to rounding.

All machines run the same program. TF_CONFIG lists their addresses and says which one this is. Each worker draws its
share of each batch; gradients, the statistics of batch normalization and the measured losses are summed over all. Only
the chief, worker 0, validates and writes; the others get from it what they need to take the same decisions. Keras'
`fit` cannot do it (keras-team/keras#20585): a loop is in its place.
"""

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

# Private: how often and how patiently workers ask for each other is set nowhere else.
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended

# Private: whether a worker is alive, and by what means TensorFlow finds out, has no public name.
from tensorflow.python.eager import context

from nuclei_unet.errors import InputError
from nuclei_unet.sample import Sample
from nuclei_unet.settings import TrainSettings
from nuclei_unet.training import fit, resume
from nuclei_unet.training.callbacks import EpochLog, Pictures, Progress, StopOnExplosion, ValidateOnOneDevice
from nuclei_unet.training.crops import Crops, as_dataset

FORM = '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}'
INSTEAD = "or set train.strategy to auto"
# How long to wait for the others at the start, s: they may stand in a queue.
PATIENCE = 600
# Seconds between two questions whether the others are alive, seconds to wait for an answer, and how many to wait for:
# a process that ended is noticed at once, a machine that no longer answers after a quarter of a minute.
INTERVAL, TIMEOUT, TRIES = 2, 5, 3


@dataclass(frozen=True)
class Team:
    """The workers of a training: their addresses, and which of them this process is. Number 0 is the chief."""

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes everything."""
        return self.index == 0


def team() -> Team:
    """Return the workers that TF_CONFIG names. Raises InputError if it names none, or not as it should."""
    if "TF_CONFIG" not in os.environ:
        raise InputError(
            "train.strategy: multiworker needs TF_CONFIG, which names all workers and says which one this is; see "
            f"docs/gpu-server.md, {INSTEAD}"
        )
    addresses, index = _from_tf_config(os.environ["TF_CONFIG"])
    if len(addresses) < 2:
        raise InputError(f"TF_CONFIG: names one worker only; name all that train together, {INSTEAD}")
    if len(set(addresses)) < len(addresses):
        raise InputError("TF_CONFIG: names a worker twice; give each its own host:port")
    if not 0 <= index < len(addresses):
        raise InputError(f"TF_CONFIG: there is no worker {index} among {len(addresses)}; they are counted from 0")
    return Team(tuple(addresses), index)


def _from_tf_config(text: str) -> tuple[list[str], int]:
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        addresses, index = cluster["worker"], task["index"]
        whole = set(cluster) == {"worker"} and task["type"] == "worker" and type(index) is int
        whole = whole and all(re.fullmatch(r"[^\s:/]+:\d+|\[[0-9a-fA-F:.]+\]:\d+", address) for address in addresses)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(f"TF_CONFIG: not of the form {FORM}; correct it, {INSTEAD}")
    return addresses, index


@dataclass(frozen=True)
class Workers:
    """The team after all of it have come, and how they hear of each other.

    All workers must call each method at the same place of their work.
    """

    team: Team
    strategy: tf.distribute.MultiWorkerMirroredStrategy

    def from_chief(self, content: bytes = b"") -> bytes:
        """Return the chief's `content`, on all workers."""
        (length,) = self._sum(np.array([len(content) if self.team.is_chief else 0], np.int32))
        sent = np.frombuffer(content, np.uint8) if self.team.is_chief else np.zeros(length, np.uint8)
        # In numbers that can be summed; those of the others are zero.
        padded = np.pad(sent, (0, -len(sent) % 4)).view(np.int32)
        return self._sum(padded).tobytes()[:length] if length else b""

    def unlike_chief(self, text: str) -> list[int]:
        """Return the numbers of the workers whose `text` is not the chief's."""
        differs = np.zeros(len(self.team.addresses), np.int32)
        differs[self.team.index] = self.from_chief(text.encode()) != text.encode()
        return np.flatnonzero(self._sum(differs)).tolist()

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of an array (N,) over all workers."""
        devices = len(self.strategy.extended.worker_devices)
        # Each worker's first device has the values, its other devices have zeros.
        first = self.strategy.experimental_distribute_values_from_function(
            lambda where: tf.identity(values if where.replica_id_in_sync_group % devices == 0 else values * 0)
        )
        summed = self.strategy.run(
            lambda value: tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value), (first,)
        )
        return self.strategy.experimental_local_results(summed)[0].numpy()


def start(team: Team, settings: TrainSettings) -> Workers:
    """Wait for all workers. To be called once, before TensorFlow's first operation.

    Raises InputError if a batch cannot be shared evenly, if this worker's port is taken, or if a worker does not come.
    """
    devices = len(team.addresses) * max(1, len(tf.config.list_physical_devices("GPU")))
    if settings.batch_size % devices:
        raise InputError(
            f"train.batch_size: {settings.batch_size} crops cannot be shared evenly by {devices} devices of "
            f"{len(team.addresses)} workers; choose a multiple of that"
        )
    print(f"worker {team.index} of {len(team.addresses)}: waiting for all of {', '.join(team.addresses)}", flush=True)
    # It would tell in many lines what `_watched` tells in one.
    tf.get_logger().setLevel("CRITICAL")
    # TensorFlow's coordination service ends a process by force, or keeps it from ending. Without it, a collective
    # operation raises an error once a worker is gone, and a thread asks whether all are alive.
    context.context().configure_coordination_service(service_type="")
    watch = CollectiveAllReduceExtended
    watch._check_health_initial_timeout, watch._check_health_interval = PATIENCE, INTERVAL
    watch._check_health_timeout, watch._check_health_retry_limit = TIMEOUT, TRIES
    task = {"type": "worker", "index": team.index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": team.addresses}, "task": task})
    try:
        return Workers(team, tf.distribute.MultiWorkerMirroredStrategy())
    except tf.errors.UnknownError as error:
        if "start gRPC server" not in str(error):
            raise
        here = f"worker {team.index} cannot listen at {team.addresses[team.index]}"
        raise InputError(f"TF_CONFIG: {here}; end what runs there, or choose another port") from None
    except (RuntimeError, tf.errors.OpError) as error:
        if not isinstance(error, tf.errors.OpError) and "waiting for the cluster" not in str(error):
            raise
        raise InputError(
            f"train.strategy: not all of {', '.join(team.addresses)} came within {PATIENCE // 60} minutes; start all "
            "workers, and let their ports through"
        ) from None


def train(
    workers: Workers,
    training: Sequence[Sample],
    validation: Sequence[Sample],
    settings: TrainSettings,
    channels: int,
    state: Path,
    log=None,
) -> tuple[keras.Model, pd.DataFrame]:
    """Train a network as `fit.train` does, together with all other workers, which call this with equal arguments.

    The chief, which must have a `log`, alone validates, prints progress, draws pictures and writes the state. Raises
    InputError if a worker is gone, or has other settings, code or data than the chief (`state.stem` is their digest).
    """
    source, center_crops = Crops(training, settings, state.parent), Crops(validation, settings, state.parent)
    steps = fit.steps_per_epoch(source, settings)
    history, stop = EpochLog(log.epoch if log else lambda *_: None), fit.early_stopping(settings)
    epochs_kept: list[int] = []
    callbacks = [ShareLogs(workers), history, stop, StopOnExplosion()]
    with _watched(workers, epochs_kept):
        with workers.strategy.scope():
            model = fit.build(settings, channels, steps, workers.strategy.num_replicas_in_sync)
        if workers.team.is_chief:
            held_out = as_dataset(center_crops.center_crop, range(len(center_crops)), settings, channels)
            validate = ValidateOnOneDevice(fit.twin(settings, channels), held_out)
            callbacks = [validate, *callbacks, Progress(), Pictures(center_crops, log.picture)]
        variables = model.variables + model.optimizer.variables
        kept = KeepSharedState(workers, state, variables, stop, history.rows, epochs_kept)
        history.log_earlier(settings.epochs)
        left = range(kept.epoch * steps, settings.epochs * steps)
        batches = share_of_batches(workers, source, settings, channels, left)
        loop(model, workers.strategy, batches, settings, steps, kept.epoch, [*callbacks, kept])
    return fit.handed_over(model, settings), pd.DataFrame(history.rows)


def share_of_batches(
    workers: Workers, source: Crops, settings: TrainSettings, channels: int, batches: range
) -> tf.data.Dataset:
    """Return this worker's share of the batches with these numbers, one batch for each of its devices in turn."""
    size = settings.batch_size // workers.strategy.num_replicas_in_sync
    share = size * len(workers.strategy.extended.worker_devices)
    first = share * workers.team.index

    def draw(number: int):
        """Draw crop `number` of this worker's: its share of the first batch, of the second ..."""
        return source.draw(number // share * settings.batch_size + first + number % share)

    numbers = range(batches.start * share, batches.stop * share)
    return as_dataset(draw, numbers, settings.model_copy(update={"batch_size": size}), channels)


def loop(
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    batches: tf.data.Dataset,
    settings: TrainSettings,
    steps: int,
    done: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    """Train a compiled model on this worker's batches as `model.fit` does, from epoch number `done` on."""
    step, names = _step(model, strategy, fit.measures(settings))
    batches = iter(batches)
    about = {"epochs": settings.epochs, "steps": steps, "verbose": 0}
    shared = keras.callbacks.CallbackList(callbacks, add_history=False, model=model, **about)
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
            logs = dict(zip(names, (sums / (number + 1)).tolist(), strict=True))
            shared.on_train_batch_end(number, logs)
        shared.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    shared.on_train_end()


def _step(model: keras.Model, strategy: tf.distribute.Strategy, measures: dict) -> tuple[Callable, list[str]]:
    """Return the function that does one step and returns the means that it measured, (N,) a device, and their names.

    The names are Keras' own; they are there after the first step.
    """
    names: list[str] = []

    def on_one_device(image, truth):
        with tf.GradientTape() as tape:
            maps = model(image, training=True)
            losses = {f"{n}_loss": tf.reduce_mean(loss(truth[n], maps[n])) for n, loss in measures["loss"].items()}
            loss = tf.add_n(list(losses.values()))
            # The optimizer sums the gradients of all devices.
            part = loss / strategy.num_replicas_in_sync
        model.optimizer.apply(tape.gradient(part, model.trainable_variables), model.trainable_variables)
        means = {"loss": loss, **(losses if len(losses) > 1 else {})}
        for target, metrics in measures["metrics"].items():
            for metric in metrics:
                means[f"{target}_{metric.__name__}"] = tf.reduce_mean(metric(truth[target], maps[target]))
        names[:] = means
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, tf.stack([*means.values()]))

    return tf.function(lambda image, truth: strategy.run(on_one_device, (image, truth))), names


class ShareLogs(keras.callbacks.Callback):
    """Give all workers the chief's measurements of an epoch. Must come before what decides by them."""

    def __init__(self, workers: Workers):
        super().__init__()
        self.workers = workers

    def on_epoch_end(self, epoch, logs=None):
        """Replace the logs."""
        logs.update(json.loads(self.workers.from_chief(json.dumps(logs).encode())))


class KeepSharedState(resume.KeepState):
    """`KeepState` of several workers: the chief keeps the state, and all start from its.

    To `epochs_kept` it adds the number of each epoch whose state is certainly written.
    """

    def __init__(self, workers: Workers, path: Path, variables: list, stop, rows: list[dict], epochs_kept: list[int]):
        if others := workers.unlike_chief(path.stem):
            raise InputError(
                f"train.strategy: worker {', '.join(map(str, others))} has other parameters, code, data, packages or "
                "precision than worker 0; bring all to the same commit and data"
            )
        self.workers, self.epochs_kept = workers, epochs_kept
        is_chief = workers.team.is_chief
        content = workers.from_chief(path.read_bytes() if is_chief and path.exists() else b"")
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            if content:
                copy.write_bytes(content)
            super().__init__(path if is_chief else copy, variables, stop, rows)
        if rows:
            epochs_kept.append(len(rows))

    def on_epoch_end(self, epoch, logs=None):
        """Write the state if this is the chief; else wait until it has."""
        if self.workers.team.is_chief:
            super().on_epoch_end(epoch, logs)
            self.epochs_kept.append(epoch + 1)
        self.workers.from_chief()
        if not self.workers.team.is_chief:
            self.epochs_kept.append(epoch + 1)


@contextlib.contextmanager
def _watched(workers: Workers, epochs_kept: list[int]) -> Iterator[None]:
    """Raise InputError instead of TensorFlow's error if a worker is gone."""
    try:
        yield
    except tf.errors.OpError as error:
        numbers = _gone(workers.team, error)
        if not numbers:
            raise
        who = ", ".join(f"worker {number} ({workers.team.addresses[number]})" for number in numbers)
        go_on = f"they go on after epoch {epochs_kept[-1]}" if epochs_kept else "they begin anew"
        are = "is" if len(numbers) == 1 else "are"
        raise InputError(f"{who} {are} gone; start all workers again and {go_on}") from None
    # All must have what the last step sent them before one ends. If one has ended, it had.
    with contextlib.suppress(tf.errors.OpError):
        workers.from_chief()
    # The training is over, and the others may end. Private: nothing else ends the thread that asks for them.
    workers.strategy.extended._stop_check_health_thread()


def _gone(team: Team, error: tf.errors.OpError) -> list[int]:
    """Return the numbers of the workers that are gone, which made a collective operation fail with `error`."""
    named = {int(number) for number in re.findall(r"/task:(\d+)", str(error))} - {team.index}
    for _ in range(5):
        if silent := [n for n in range(len(team.addresses)) if n != team.index and not _answers(n)]:
            # Who left first takes the others along, and the error names the first.
            return sorted(named & set(silent)) or silent
        time.sleep(1)
    return []


def _answers(number: int) -> bool:
    try:
        context.context().check_collective_ops_peer_health(f"/job:worker/replica:0/task:{number}", 1000 * TIMEOUT)
    except tf.errors.OpError:
        return False
    return True
