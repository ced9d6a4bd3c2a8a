"""Set up TensorFlow for bit-for-bit reproducible results: seeds, threads, precision, devices."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import tensorflow as tf

from nuclei_unet.errors import InputError
from nuclei_unet.settings import TrainSettings


def configure(settings: TrainSettings) -> str:
    """Seed TensorFlow and fix its threads, before its first operation; return the precision policy's name."""
    keras.utils.set_random_seed(settings.seed)
    # The number of threads decides how sums are split. By default TensorFlow takes it from the machine.
    tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
    tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
    tf.config.experimental.enable_op_determinism()
    policy = resolve_precision(settings.precision)
    keras.config.set_dtype_policy(policy)
    return policy


@contextmanager
def precision(setting: str) -> Iterator[None]:
    """Build networks in this precision within the block: float32, mixed_bfloat16 or auto (see `resolve_precision`)."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(resolve_precision(setting))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def resolve_precision(setting: str) -> str:
    """Return the policy that `auto` means on this machine; any other setting is returned as it is.

    bfloat16 is faster where the hardware multiplies it, and far slower where it is emulated.
    """
    if setting != "auto":
        return setting
    if gpus := tf.config.list_physical_devices("GPU"):
        # NVIDIA GPUs support it since Ampere, compute capability 8.0.
        generations = [tf.config.experimental.get_device_details(gpu).get("compute_capability") for gpu in gpus]
        return "mixed_bfloat16" if all(number and number >= (8, 0) for number in generations) else "float32"
    return "mixed_bfloat16" if _multiplies_bfloat16() else "float32"


def _multiplies_bfloat16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and bool({"amx_bf16", "avx512_bf16"} & set(cpuinfo.read_text().split()))


def strategy(settings: TrainSettings) -> tf.distribute.Strategy:
    """Return the strategy that trains on one device, or shares each batch between all devices of this machine.

    `auto` uses all GPUs if there are several. Raises InputError if a batch cannot be shared evenly.
    """
    gpus = tf.config.list_logical_devices("GPU")
    devices = gpus or tf.config.list_logical_devices("CPU")
    if settings.strategy == "single" or len(devices) == 1 or (settings.strategy == "auto" and not gpus):
        return tf.distribute.get_strategy()
    if settings.batch_size % len(devices):
        raise InputError(
            f"train.batch_size: {settings.batch_size} crops cannot be shared evenly by {len(devices)} devices; "
            "choose a multiple of that, or set train.strategy to single"
        )
    return tf.distribute.MirroredStrategy([device.name for device in devices])
