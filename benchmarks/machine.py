"""The machine that measured: what a reader must know to read the figures."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import tempfile
from pathlib import Path

from benchmarks.in_jax.contestant import installed_at

# of processes that measure: no GPUs, and no lines of TensorFlow's
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}
PACKAGES = ("tensorflow", "keras", "numpy", "tf-models-official")


def describe_machine() -> dict[str, str]:
    """Processor, cores, memory, load at the start, versions, and the source's revision."""
    found = {
        "processor": _line("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": str(os.cpu_count()),
        "memory": f"{int((_line('/proc/meminfo', 'MemTotal') or '0').split()[0]) / 2**20:.0f} GB",
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    apart = importlib.metadata.distributions(path=[str(installed_at())])
    versions = {one.name: one.version for one in apart}
    found.update({name: versions.get(name, "not installed") for name in ("jax", "optax")})
    found["revision"] = _revision()
    return found


def users_environment() -> dict[str, str]:
    """Of a process whose start is timed: without GPUs; byte code is kept, as users have it."""
    environment = {**os.environ, **QUIET}
    if environment.pop("PYTHONDONTWRITEBYTECODE", None):
        environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir(), "termwise-bytecode"))
    return environment


def _line(file: str, start: str) -> str | None:
    path = Path(file)
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith(start):
            return line.split(":", 1)[1].strip()
    return None


def _revision() -> str:
    root = Path(__file__).resolve().parent.parent
    try:
        asked = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
