"""A process of a test on several hosts, all that it says, and what its run leaves, in numbers."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.trainer.said import Said

ROOT = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).parents[1] / "kill_worker.py"
LONGEST = 1200  # seconds until a test gives up
OWN = ("time", "steps_per_second", "examples_per_second")  # in which equal runs may differ
BOOKKEEPING = ("_CHECKPOINTABLE_OBJECT_GRAPH", "save_counter/.ATTRIBUTES/VARIABLE_VALUE")
# parts of a checkpoint; metrics and windows are kept replica by replica, and are of the ledger
KEPT = ("model", "optimizers", "terms", "step", "data_start")
STEPS = 120


def command(workdir, **job):
    """What a worker of a run runs: `kill_worker.train` on all hosts that the environment names."""
    job = {"workdir": workdir, "strategy": "multi_worker", "steps": STEPS, "alike": True, **job}
    return [sys.executable, str(WORKER), json.dumps(job, default=str)]


def environment(**more):
    """Of a worker: no GPU, this repository, and nothing of a cluster that the tests run in."""
    ours = ("SLURM", "TERMWISE", "TF_CONFIG", "JOB_COMPLETION_INDEX")
    own = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    return {**own, **{name: str(value) for name, value in more.items()}}


class Started(Said):
    """A process in a session of its own; the end of `with` ends it and its children.

    Args:
      arguments: list of str, what is run.
      variables: its environment, by default `environment()`.
    """

    def __init__(self, arguments, variables=None):
        process = subprocess.Popen(
            arguments,
            env=environment() if variables is None else variables,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        super().__init__(process, LONGEST)

    def send(self, number, *, group=False):
        """Gives it a signal, or all of its group."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # one that has ended keeps its number, and the group its, until it is waited for
        if self.process.returncode is None:
            self.send(9, group=True)
        self.process.wait(timeout=LONGEST)
        self.stop_reading()


def wait_for(holds, seconds=LONGEST):
    """Returns once a function gives something true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to it in time"
        time.sleep(0.2)


def rows(workdir):
    """The ledger, without what depends on the clock."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in OWN} for line in lines]


def resumed_from(workdir):
    """The step from which each start of a run went on; None where it was new."""
    lines = (workdir / "starts.jsonl").read_text().splitlines()
    return [json.loads(line)["resumed_from"] for line in lines]


def check_close(workdir, undisturbed):
    """Raises unless two runs have one ledger to 1e-6, and all variables to 5e-6.

    Of the variables those in `KEPT`.
    """
    found, expected = rows(workdir), rows(undisturbed)
    assert [set(row) for row in found] == [set(row) for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.items():
            if isinstance(value, float):
                assert np.isclose(ours[name], value, rtol=1e-6, atol=1e-6), (name, theirs["step"])
            else:
                assert ours[name] == value, (name, theirs["step"])
    (ours, theirs) = (variables(folder) for folder in (workdir, undisturbed))
    assert ours.keys() == theirs.keys() and len(theirs) > 5
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=5e-6, atol=5e-6, err_msg=name)


def variables(workdir):
    """name -> value, of the last checkpoint: weights, slots, averages, loss parameters."""
    reader = tf.train.load_checkpoint(str(workdir / "checkpoints" / f"ckpt-{STEPS}"))
    names = sorted(reader.get_variable_to_shape_map())
    return {
        name: reader.get_tensor(name)
        for name in names
        if name not in BOOKKEEPING and name.split("/")[0] in KEPT
    }
