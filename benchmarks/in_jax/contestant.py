"""A contestant that drives the process of JAX.

JAX has threads and a numpy of its own, which in one process with TensorFlow would
stand in the way. Between its rounds the process waits for a line and does nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PROCESS = "from benchmarks.in_jax.process import main; import sys; main(*sys.argv[1:])"
ROOT = Path(__file__).resolve().parent.parent.parent


def installed_at() -> Path:
    """Where JAX is installed apart: `BENCHMARKS_JAX`, or the folder `jax` of this environment."""
    return Path(os.environ.get("BENCHMARKS_JAX") or Path(sys.prefix) / "jax")


def jax_scan(name: str):
    """A function of (workload, strategy) that returns a contestant.

    Args:
      name: of the workload; JAX has a model for each.
    """

    def make(workload, strategy=None):
        return JaxProcess(workload, name)

    return make


class JaxProcess:
    """JAX training a workload from the weights that everyone starts with.

    Args:
      workload, name: what is trained.
    Attributes:
      ran: steps of the last round, whole epochs.
      cpu: seconds of processor time that they took there.
    Raises:
      ImportError: JAX or optax is not installed.
    """

    def __init__(self, workload, name: str):
        self.ran, self.cpu = 0, 0.0
        x, y = workload.arrays()
        weights = {str(i): v.numpy() for i, v in enumerate(workload.model().trainable_variables)}
        path = [str(installed_at()), str(ROOT)]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "JAX_PLATFORMS": "cpu",
        }
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/start.npz"
            np.savez(file, x=x, y=y, batch=workload.batch, **weights)
            command = [sys.executable, "-c", PROCESS, file, name]
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self.version = self._answer()

    def __call__(self, steps: int) -> float:
        """Runs at least that many steps; seconds for that many."""
        answer = self._ask(str(steps))
        self.ran, self.cpu = answer["steps"], answer["cpu"]
        return answer["seconds"] * steps / self.ran

    def losses(self, steps: int) -> list[float]:
        """The losses of that many steps over the arrays in their order."""
        return self._ask(f"losses {steps}")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, line: str):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        _, said = self._process.communicate()
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        kind = ImportError if last.startswith(("ModuleNotFoundError", "ImportError")) else None
        raise (kind or RuntimeError)(last)
