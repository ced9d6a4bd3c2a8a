"""What a measurement ran on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe(*packages: str) -> str:
    """Return the CPU's name and flags that matter, the cores in use, Python's and TensorFlow's versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.processor() or platform.machine())
    flags = sorted({"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(fields.get("flags", "").split()))
    versions = ", ".join(f"{package} {version(package)}" for package in ("tensorflow", "keras", *packages))
    return f"{cpus()} cores of {name} ({', '.join(flags)}); Python {platform.python_version()}, {versions}."


def cpus() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
