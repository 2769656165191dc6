"""A worker that has imported TensorFlow already and waits to be told its place.

    python -m trainer.launch.standby_process -m package.module --its=arguments

The launcher writes one line to its standard input when it is needed: a JSON object of what
TF_CONFIG and the like are to be. From then on it is the process that would have been started then.
Without a line it ends.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys

# what a worker of any program imports; a run that writes needs the last
HEAVY = ("tensorflow", "keras", "trainer.trainer", "trainer.ledger.events")


def main(words: list[str]) -> None:
    """Imports what takes long, waits, and becomes the worker.

    Args:
      words: what stands behind the interpreter: `-m`, a module and its arguments, or a script and
        its arguments.
    """
    for name in HEAVY:
        importlib.import_module(name)
    line = sys.stdin.readline()
    if not line:
        return
    os.environ.update(json.loads(line))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    run(words)


def run(words: list[str]) -> None:
    """Runs a module or a script as Python itself would."""
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
