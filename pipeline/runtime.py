"""TensorFlow set up so that the same parameters give the same bits: seeds, threads, precision."""

from pathlib import Path

import keras
import tensorflow as tf

from pipeline.params import TrainParams


def configure(params: TrainParams) -> str:
    """Seed and pin TensorFlow, before its first operation; return the precision policy's name."""
    keras.utils.set_random_seed(params.seed)
    # Sums are split by the number of threads; left alone, TensorFlow takes it from the machine.
    tf.config.threading.set_intra_op_parallelism_threads(params.threads)
    tf.config.threading.set_inter_op_parallelism_threads(params.threads)
    tf.config.experimental.enable_op_determinism()
    precision = resolve_precision(params.precision)
    keras.config.set_dtype_policy(precision)
    return precision


def resolve_precision(setting: str) -> str:
    """Return the policy that `auto` stands for on this machine, any other setting as it is.

    bfloat16 is faster where the hardware multiplies it, and far slower where it is emulated.
    """
    if setting != "auto":
        return setting
    if tf.config.list_physical_devices("GPU"):
        return "mixed_bfloat16"
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return "mixed_bfloat16" if {"amx_bf16", "avx512_bf16"} & set(flags) else "float32"
