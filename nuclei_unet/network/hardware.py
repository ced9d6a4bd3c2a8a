"""What this machine computes quickly, found without starting TensorFlow."""

from pathlib import Path


def multiplies_bfloat16() -> bool:
    """Tell whether the CPU multiplies bfloat16 itself; elsewhere it is emulated and far slower than float32."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return bool({"amx_bf16", "avx512_bf16"} & set(flags))


def has_nvidia_gpu() -> bool:
    """Tell whether an NVIDIA GPU's driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists()
