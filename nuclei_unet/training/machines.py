"""Who takes part in a training on several machines, and how they hear of each other.

All run the same program. TF_CONFIG lists their addresses and says which one this is. Under SLURM's `srun` its own
variables say the same.
"""

import functools
import json
import os
import re
import time
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver as slurm
from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended
from tensorflow.python.eager import context

from nuclei_unet.errors import InputError
from nuclei_unet.settings import TrainSettings

FORM = '{"cluster": {"worker": ["host:port", "host:port"]}, "task": {"type": "worker", "index": 0}}'
INSTEAD = "or set train.strategy to auto"
PORT = 8888  # of the first worker on each machine under SLURM, as TensorFlow has it
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
    def chief(self) -> bool:
        """Whether this is the worker that writes everything."""
        return self.index == 0


def team(settings: TrainSettings) -> Team | None:
    """Return the workers that the environment names; None if `settings` are for one machine. Raises InputError."""
    if settings.strategy != "multiworker":
        return None
    if "TF_CONFIG" in os.environ:
        return _from_tf_config(os.environ["TF_CONFIG"])
    if "SLURM_STEP_NODELIST" in os.environ:
        return _from_slurm()
    raise InputError(
        "train.strategy: multiworker needs TF_CONFIG, which names all workers and says which one this is, or SLURM's "
        f"srun; see docs/gpu-server.md, {INSTEAD}"
    )


def start(team: Team, settings: TrainSettings) -> tf.distribute.MultiWorkerMirroredStrategy:
    """Wait for all workers and return the strategy that shares each batch between their devices.

    To be called before TensorFlow's first operation. A second call returns the same. Raises InputError if a batch
    cannot be shared evenly, if this worker's port is taken, or if a worker does not come.
    """
    devices = len(team.addresses) * max(1, len(tf.config.list_physical_devices("GPU")))
    if settings.batch_size % devices:
        raise InputError(
            f"train.batch_size: {settings.batch_size} crops cannot be shared evenly by {devices} devices of "
            f"{len(team.addresses)} workers; choose a multiple of that"
        )
    return _start(team)


@functools.cache
def _start(team: Team) -> tf.distribute.MultiWorkerMirroredStrategy:
    print(f"worker {team.index} of {len(team.addresses)}: waiting for all of {', '.join(team.addresses)}", flush=True)
    # It would tell in many lines what `gone` tells in one.
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
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.UnknownError as error:
        if "start gRPC server" not in str(error):
            raise
        raise InputError(
            f"TF_CONFIG: worker {team.index} cannot listen at {team.addresses[team.index]}; end what runs there, or "
            "choose another port"
        ) from None
    except (RuntimeError, tf.errors.OpError) as error:
        if not isinstance(error, tf.errors.OpError) and "waiting for the cluster" not in str(error):
            raise
        raise InputError(
            f"train.strategy: not all of {', '.join(team.addresses)} came within {PATIENCE // 60} minutes; start all "
            "workers, and let their ports through"
        ) from None


def gone(team: Team, error: tf.errors.OpError) -> list[int]:
    """Return the numbers of the workers that are gone, which made a collective operation fail with `error`."""
    named = {int(number) for number in re.findall(r"/task:(\d+)", str(error))} - {team.index}
    for _ in range(5):
        if silent := [n for n in range(len(team.addresses)) if n != team.index and not _answers(n)]:
            # Who left first takes the others along, and the error names the first.
            return sorted(named & set(silent)) or silent
        time.sleep(1)
    return []


def leave(strategy: tf.distribute.Strategy) -> None:
    """Stop asking whether the others are alive: the training is over, and they may end."""
    strategy.extended._stop_check_health_thread()


def share(strategy: tf.distribute.Strategy, team: Team, content: bytes = b"") -> bytes:
    """Return the chief's `content`, on all workers. All must call this at the same place of their work."""
    (length,) = _sum(strategy, np.array([len(content) if team.chief else 0], np.int32))
    sent = np.frombuffer(content, np.uint8) if team.chief else np.zeros(length, np.uint8)
    # In numbers that can be summed; those of the others are zero.
    padded = np.pad(sent, (0, -len(sent) % 4)).view(np.int32)
    return _sum(strategy, padded).tobytes()[:length] if length else b""


def same(strategy: tf.distribute.Strategy, team: Team, text: str) -> list[int]:
    """Return the numbers of the workers whose `text` is not the chief's. All must call this."""
    differs = np.zeros(len(team.addresses), np.int32)
    differs[team.index] = share(strategy, team, text.encode()) != text.encode()
    return np.flatnonzero(_sum(strategy, differs)).tolist()


def _sum(strategy: tf.distribute.Strategy, values: np.ndarray) -> np.ndarray:
    """Return the sum of an array (N,) over all workers."""
    # Each worker's first device has the values, its other devices have zeros.
    first = strategy.experimental_distribute_values_from_function(
        lambda where: tf.identity(values if where.replica_id_in_sync_group % _local(strategy) == 0 else values * 0)
    )
    summed = strategy.run(
        lambda value: tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value), (first,)
    )
    return strategy.experimental_local_results(summed)[0].numpy()


def _local(strategy: tf.distribute.Strategy) -> int:
    return len(strategy.extended.worker_devices)


def _answers(number: int) -> bool:
    try:
        context.context().check_collective_ops_peer_health(f"/job:worker/replica:0/task:{number}", 1000 * TIMEOUT)
    except tf.errors.OpError:
        return False
    return True


def _from_tf_config(text: str) -> Team:
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
    return _checked("TF_CONFIG", addresses, index)


def _from_slurm() -> Team:
    # TensorFlow's SlurmClusterResolver sorts machines by name, so node10 comes before node9 and numbers no longer fit,
    # and it asks nvidia-smi, which is not everywhere. Its functions that read the variables do neither.
    try:
        hosts = slurm.expand_hostlist(os.environ["SLURM_STEP_NODELIST"])
        counts = slurm.expand_tasks_per_node(os.environ["SLURM_STEP_TASKS_PER_NODE"])
        index = int(os.environ["SLURM_PROCID"])
        addresses = [f"{host}:{PORT + n}" for host, count in zip(hosts, counts, strict=True) for n in range(count)]
    except (KeyError, ValueError):
        raise InputError(
            "train.strategy: SLURM_STEP_NODELIST, SLURM_STEP_TASKS_PER_NODE and SLURM_PROCID do not say who the "
            f"workers are; start this with srun, set TF_CONFIG, {INSTEAD}"
        ) from None
    return _checked("SLURM_STEP_NODELIST", addresses, index)


def _checked(name: str, addresses: list[str], index: int) -> Team:
    if len(addresses) < 2:
        raise InputError(f"{name}: names one worker only; name all that train together, {INSTEAD}")
    if len(set(addresses)) < len(addresses):
        raise InputError(f"{name}: names a worker twice; give each its own host:port")
    if not 0 <= index < len(addresses):
        raise InputError(f"{name}: there is no worker {index} among {len(addresses)}; they are counted from 0")
    return Team(tuple(addresses), index)
