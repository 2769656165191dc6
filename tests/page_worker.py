"""Runs scripts, each in a process of its own, forked from one that has imported TensorFlow once.

    python page_worker.py < jobs        # a job in JSON on each line: {"script": ..., "output": ...}

It prints a script's exit code when it has ended; minus a signal's number where one ended it. A
script runs as `python script` in its folder would; it finds imported what it imports. Forking is
safe while the process that forks has one thread and TensorFlow has run nothing: that is checked.
"""

import json
import os
import runpy
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's library would start threads when imported

import keras  # noqa: F401
import numpy  # noqa: F401
import tensorflow  # noqa: F401

import losses  # noqa: F401
import trainer.ledger.tensorboard  # noqa: F401  imported by a run that writes


def next_script():
    """The script that a new child is to run; None in the parent, when it has been told the last."""
    for line in sys.stdin:
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads is not to be forked"
        job = json.loads(line)
        child = os.fork()
        if not child:
            take_over(job["output"])
            return Path(job["script"])
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(code, flush=True)
    return None


def take_over(output):
    """Makes this process one of its own: nothing to read, both outputs in one file."""
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
        (2, output, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
    ):
        os.dup2(os.open(path, flags), number)
    del os.environ["OPENBLAS_NUM_THREADS"]


script = next_script()
if script is not None:
    os.chdir(script.parent)
    sys.argv, sys.path[0] = [script.name], str(script.parent)
    runpy.run_path(script.name, run_name="__main__")
