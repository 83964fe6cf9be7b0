"""What a measurement ran on: stored inside every result, printed by ``edgerec doctor``."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "numpy",
    "onnxruntime",
    "tokenizers",
    "polars",
    "torch",
    "transformers",
    "onnx",
    "optimum-onnx",
    "nncf",
    "openvino",
    "tensorrt",
)

# flag in /proc/cpuinfo (x86 "flags", aarch64 "Features") -> the name people know
CPU_FEATURES = {"avx2": "AVX2", "avx512_vnni": "AVX512-VNNI", "avx_vnni": "AVX-VNNI", "asimddp": "dotprod"}

EXTRAS = {
    "text": ("tokenizers",),
    "data": ("polars", "rich"),
    "distill": ("torch", "transformers", "accelerate", "scipy", "scikit-learn"),
    "export": ("onnx", "onnx-ir", "nncf", "optimum-onnx"),
    "figures": ("matplotlib",),
    "openvino": ("openvino",),
    "serve": ("msgspec", "prometheus-client", "starlette", "uvicorn"),
    "sign": ("cryptography",),
    "tensorrt": ("tensorrt",),
}


def version(package: str) -> str | None:
    """Return an installed distribution's version without importing it, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpu_features(cpuinfo: str) -> dict[str, bool]:
    """Tell which vector instructions matter for INT8 and are there.

    Args:
        cpuinfo: The text of ``/proc/cpuinfo``.
    """
    words = set(cpuinfo.lower().split())
    return {name: flag in words for flag, name in CPU_FEATURES.items()}


def cpu_model(cpuinfo: str) -> str:
    """Return the processor's name from the text of ``/proc/cpuinfo``, or what Python knows of it."""
    for line in cpuinfo.splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Return machine, threads, load, package versions and onnxruntime's providers as one JSON value."""
    import onnxruntime

    cpuinfo = read_cpuinfo() or ""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": cpu_model(cpuinfo),
        "cpu_features": cpu_features(cpuinfo),
        "cores": usable_cores(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "packages": {name: version(name) for name in PACKAGES},
        "providers": onnxruntime.get_available_providers(),
        "missing": {
            extra: lacking for extra, names in EXTRAS.items() if (lacking := [n for n in names if version(n) is None])
        },
    }


def has_vnni(cpuinfo: str | None) -> bool | None:
    """Tell whether the CPU multiplies bytes without saturating on the way (VNNI on x86, dot products on ARM).

    Args:
        cpuinfo: The text of ``/proc/cpuinfo``; None where there is none.

    Returns:
        None where that is not known.
    """
    if not cpuinfo:
        return None
    found = cpu_features(cpuinfo)
    return any(found[name] for name in ("AVX512-VNNI", "AVX-VNNI", "dotprod"))


def read_cpuinfo() -> str | None:
    """Return the text of ``/proc/cpuinfo``; None where there is none."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else None
