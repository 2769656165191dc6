"""What is typed behind `python -m trainer.launch.on_ray`."""

from __future__ import annotations

import contextlib
import dataclasses
import math

from trainer.launch.suggestion import nearest

USAGE = """\
Runs a training command on the nodes of a Ray cluster and watches it.

  python -m trainer.launch.on_ray --workers=4 -- \\
      python -m experiments.run --strategy=multi_worker ...

  --workers=N             how many; each is an actor of Ray, on a node of its own where there is one
  --least=N               goes on with so few when others are lost, and grows again; 1
  --cpus_per_worker=N     of Ray's resources; 1
  --gpus_per_worker=N     of Ray's resources; 0. A worker sees only its own
  --patience_s=SECONDS    how long a start waits for all, before it goes on with fewer; 30
  --startup_s=SECONDS     how long a start waits for the least, and a worker for its peers; 600
  --max_restarts=N        after a failure all workers are stopped and started again, so often; 3
  --grace_s=SECONDS       from SIGTERM, on which workers save, to SIGKILL; 30
  --address=ADDRESS       of the Ray cluster; without it RAY_ADDRESS, else one on this machine

Variables whose names begin with TERMWISE_, TF_, KERAS_ or XLA_ go to the workers; others are those
of Ray's nodes. Exit codes are those of python -m trainer.launch.
"""


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags, as `USAGE` lists them, and as `command` what follows them."""

    workers: int
    command: tuple[str, ...]
    least: int = 1
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    patience_s: float = 30.0
    startup_s: float = 600.0
    max_restarts: int = 3
    grace_s: float = 30.0
    address: str = ""


_WHOLE = {"workers": 1, "least": 1, "max_restarts": 0}


def parse(argv: list[str]) -> Flags:
    """The flags of a command line.

    Raises:
      ValueError: an unknown flag, a value that is not accepted, no command.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    names = [field.name for field in dataclasses.fields(Flags) if field.name != "command"]
    values: dict = {}
    for argument in argv[:end]:
        name, equals, text = argument.lstrip("-").partition("=")
        if not argument.startswith("--") or not equals or name not in names:
            match = nearest(name, names)
            hint = f"Did you mean --{match}=...?" if match else "--help lists the flags."
            raise ValueError(f"{argument}: no such flag. {hint}")
        values[name] = text if name == "address" else _number(name, text)
    if not argv[end + 1 :]:
        raise ValueError(
            "no command is given. Write it after --, as in python -m trainer.launch.on_ray "
            "--workers=2 -- python -m experiments.run ..."
        )
    if "workers" not in values:
        raise ValueError("--workers=N is not given. Say how many workers there are to be.")
    flags = Flags(command=tuple(argv[end + 1 :]), **values)
    if flags.least > flags.workers:
        raise ValueError(
            f"--least={flags.least}: is more than --workers={flags.workers}. Ask for fewer."
        )
    return flags


def _number(name: str, text: str) -> float | int:
    least = _WHOLE.get(name, 0)
    with contextlib.suppress(ValueError):
        number = int(text) if name in _WHOLE else float(text)
        if least <= number < math.inf:
            return number
    kind = "whole number" if name in _WHOLE else "number"
    raise ValueError(f"--{name}={text}: accepted is a {kind} of at least {least}.")
