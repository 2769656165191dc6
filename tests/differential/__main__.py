"""`python -m tests.differential --minutes=30 [--seed=0]`: draws programs, and tells what differs.

Each chunk of programs runs in a process of its own. A program that fails is made as plain as it can
be while it fails, and printed as the Python that makes it. The exit code is 1 where one failed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import MISSING, fields, replace

CHUNK = 10  # programs of a process


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the first chunk")
    parser.add_argument("--chunk", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.chunk:
        return _chunk(arguments.seed)
    end = time.monotonic() + 60 * arguments.minutes
    number, failed = arguments.seed, 0
    while time.monotonic() < end:
        command = [sys.executable, "-m", "tests.differential", "--chunk", f"--seed={number}"]
        failed += subprocess.run(command).returncode != 0
        number += 1
    chunks = number - arguments.seed
    print(f"{chunks * CHUNK} programs in {chunks} processes, {failed} of them with a failure")
    return int(failed > 0)


def _chunk(number: int) -> int:
    """Draws the programs of one process; 1 where one failed."""
    from experiments.cli.startup import start_tensorflow

    start_tensorflow(virtual_devices=2)
    import tensorflow as tf
    from hypothesis import HealthCheck, Phase, given, seed, settings

    from tests.differential.draws import programs

    two = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
    failures: list = []

    @seed(number)
    @settings(
        max_examples=CHUNK,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def run(program):
        faults = _faults(program, two)
        if faults:
            failures.append(program)
            print(f"seed {number}: {_written(program)}\n  {faults[0]}", flush=True)

    run()
    for program in failures:
        plain = _simplified(program, two)
        print(f"seed {number}, made plain: {_written(plain)}")
        print("".join(f"  {line}\n" for line in _faults(plain, two)[:4]), flush=True)
    return int(bool(failures))


def _faults(program, two) -> list[str]:
    from tests.differential.compare import differences

    try:
        return differences(program, two)
    except Exception as error:
        return [f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"]


def _simplified(program, two):
    """The program with every choice at its default that it still fails without."""
    for field in fields(program):
        default = field.default
        if default is MISSING or getattr(program, field.name) == default:
            continue
        plainer = replace(program, **{field.name: default})
        faults = _faults(plainer, two)
        if faults and "not recognized" not in faults[0]:  # settings of another optimizer
            program = plainer
    return program


def _written(program) -> str:
    """`Program(loss='mae', steps=5)`."""
    shown = [
        f"{field.name}={getattr(program, field.name)!r}"
        for field in fields(program)
        if getattr(program, field.name) != field.default
    ]
    return f"Program({', '.join(shown)})"


if __name__ == "__main__":
    sys.exit(main())
