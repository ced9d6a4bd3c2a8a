"""What this machine computes quickly, found without starting TensorFlow."""

from pathlib import Path


def has_amx() -> bool:
    """Tell whether the CPU has a unit for products of bfloat16 matrices: several times as fast as float32."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text().split()


def has_nvidia_gpu() -> bool:
    """Tell whether an NVIDIA GPU's driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists()
