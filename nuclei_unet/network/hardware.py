"""What this machine computes quickly, found without starting TensorFlow."""

from pathlib import Path


def multiplies_bfloat16() -> bool:
    """Tell whether the CPU multiplies bfloat16 itself; elsewhere it is emulated and far slower than float32."""
    return bool({"amx_bf16", "avx512_bf16"} & _flags())


def has_amx() -> bool:
    """Tell whether the CPU has a unit for products of bfloat16 matrices: several times as fast as float32."""
    return "amx_bf16" in _flags()


def _flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    return set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()


def has_nvidia_gpu() -> bool:
    """Tell whether an NVIDIA GPU's driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists()
