"""A training program for tests that end it: one run, or one forked for each job it is told.

    python kill_worker.py '{"workdir": "runs/a"}'       # one run; the keys are those of `train`
    python kill_worker.py                               # a job in JSON for each line of stdin

All that has a state is in it: dropout, batch normalization, Adam's slots and averages, a loss
parameter, a train metric, the order of the data, log windows into which checkpoints fall. It
says on stdout what it does: `started 123` (the process), `starting`, `call from 7`, `step 14`,
`evaluating`, `evaluated`, `finishing`, `returned`, `ended -9`; after `ended` it waits for an empty
line. A run that is told to `hold` at one of these lines waits there, so that a test which ends it
there cannot come too late. `disk` of a job is put into the environment: what disk_faults.c reads.

To spare each run the import of TensorFlow, runs are forked from a process that has imported it.
That is safe while this process has one thread and TensorFlow has run nothing: `next_job` checks it.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import time
import traceback

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's library would start threads when imported

import keras
import numpy as np
import tensorflow as tf

import losses
import trainer.ledger.events  # noqa: F401  imported by a run that writes
from trainer import Sources, TermwiseError, Trainer, resolve_strategy
from trainer.fitting import plan
from trainer.ledger.console import Console
from trainer.ledger.history import History
from trainer.ledger.writers import Writers
from trainer.persistence import Checkpoints, Workdir, WorkdirLock, checkpoint

# no cadence divides all others: windows go on over checkpoints, checkpoints come between rows
SETTINGS = {"steps": 600, "log_every": 7, "checkpoint_every": 20, "validate_every": 30}
SOURCES = {"arrays": (), "pipeline": (), "sources": ("smooth", "rare")}  # beside the main one


def say(line):
    os.write(1, f"{line}\n".encode())  # whole, even when the process is killed


class Voice:
    """Says what the run does, and waits behind the first line that begins with `hold`.

    Args:
      hold: the beginning of a line; "saving" where a checkpoint is written and does not count yet.
      go: the path of a file; the run goes on once it is there.
    """

    def __init__(self, hold, go):
        self.hold, self.go, self.parent = hold, go, os.getppid()
        if hold == "saving":
            self.before(checkpoint, "write_manifest", "saving")
        self.before(Workdir, "done", "finishing")

    def __call__(self, line):
        say(line)
        while self.hold and line.startswith(self.hold) and not self.may_go:
            time.sleep(0.001)

    @property
    def may_go(self):
        return os.path.exists(self.go) or os.getppid() != self.parent  # the tests are gone

    def before(self, place, name, line):
        """Says a line before a function is called."""
        function = getattr(place, name)

        def telling(*arguments):
            self(line)
            return function(*arguments)

        setattr(place, name, telling)


class Masks(keras.layers.Layer):
    """Dropout that keeps the last mask: 0 where it dropped, else 2; of replicas the mean."""

    def __init__(self):
        super().__init__(name="masks")
        self.dropout = keras.layers.Dropout(0.5, seed=7)
        self.kept = self.add_weight(shape=(64,), initializer="zeros", trainable=False, name="kept")

    def call(self, x, training=False):
        mask = self.dropout(tf.ones([1, 64]), training=training)
        if training:
            self.kept.assign(mask[0])
        return x * (0.5 + 0.5 * mask[:, :4])


class Events(keras.callbacks.Callback):
    """Says where the loop is."""

    def __init__(self, say):
        super().__init__()
        self.say = say

    def on_train_batch_begin(self, batch, logs=None):
        self.say(f"call from {batch}")

    def on_train_batch_end(self, batch, logs=None):
        self.say(f"step {batch + 1}")

    def on_test_begin(self, logs=None):
        self.say("evaluating")

    def on_test_end(self, logs=None):
        self.say("evaluated")


def build():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            Masks(),
            layers.Dense(1),
        ],
        name="net",
    )


def flat(step):
    """The size of the outputs, of examples of the term's source."""
    return tf.square(step.y_pred[:, 0])


def build_alike():
    """A model without draws and statistics of a batch: the same on any number of replicas."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, activation="tanh"),
            layers.LayerNormalization(),
            layers.Dense(1),
        ],
        name="net",
    )


def train(
    workdir=None,
    data="arrays",
    devices=1,
    strategy="one_device",
    hold=None,
    go=None,
    alike=False,
    export=None,
    often=False,
    **fit,
):
    """Trains to the end from wherever the workdir stands.

    Args:
      workdir: a path, or None.
      data: "arrays" or "pipeline", both shuffled; "sources": arrays, a pipeline, and arrays that
        are drawn at some steps.
      devices: how many logical devices the CPU is made.
      strategy: a name.
      hold, go: as of `Voice`.
      alike: whether the model is one that any number of replicas trains to the same weights.
      export: where the model is exported afterwards, or None.
      often: whether `checkpoint_every="auto"` saves whenever it can.
      fit: arguments of `Trainer.fit` beside `SETTINGS`.
    """
    voice = Voice(hold, go)
    voice("starting")
    if often:
        plan.FIRST_S = plan.LONGEST_S = 0.0
        plan.LARGEST_SHARE = 1.0
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * devices,
    )
    strategy = resolve_strategy(strategy)
    keras.utils.set_random_seed(0)
    trained = Trainer(
        build_alike if alike else build,
        optimizer=keras.optimizers.Adam(0.01, use_ema=True),
        loss="mse",
        loss_weights=losses.UncertaintyWeight(),
        metrics=["mae"],
        terms=[losses.term(flat, name=f"flat_{of}", source=of) for of in SOURCES[data]],
        strategy=strategy,
        workdir=workdir,
    )
    x = np.random.default_rng(3).normal(size=(50, 5)).astype("float32")
    arrays = x, x[:, :1] - x[:, 1:2] ** 2
    given = {**SETTINGS, "validation_data": arrays, "keep_best": 2, "verbose": False}
    source, pipeline = arrays, tf.data.Dataset.from_tensor_slices(arrays).shuffle(20, seed=4)
    if data == "pipeline":
        source = pipeline.batch(8)
    else:
        given["batch_size"] = 8
    if data == "sources":
        given["batch_size"] = {"main": 8, "rare": 3}
        source = Sources(main=arrays, smooth=pipeline.batch(6), rare=(x[:7],)).sampled(rare=0.3)
    trained.fit(source, callbacks=[Events(voice)], **{**given, **fit})
    if export:
        trained.export(export)
    voice("returned")


def write_as_a_fit(
    workdir=None, hold=None, go=None, steps=45, every=(7, 10, 15), end="returned", **keep
):
    """What a fit does with the disk, in the same order, without what it computes: much faster.

    Args:
      workdir, hold, go: as of `train`.
      steps: int.
      every: steps of a row, a checkpoint, an evaluation.
      end: what is said at the end.
      keep: of `Checkpoints`.
    """
    voice, workdir = Voice(hold, go), Workdir(workdir)
    weights, step = tf.Variable(np.zeros([20, 5])), tf.Variable(0, dtype=tf.int64)
    row = {"split": "train", "total": 0.5, "steps_per_second": 1.0, "examples_per_second": 1.0}
    config = {"learning_rate": 0.1}
    with WorkdirLock(workdir.path):
        console = Console(quiet=True)
        state = {"model": [weights], "step": [step]}
        checkpoints = Checkpoints(workdir.checkpoints, state, say=console.warning, **keep)
        resumed = int(step) if checkpoints.restore_latest() else None
        history = History()
        history.rows.extend(workdir.cut_metrics(int(step)))
        workdir.start(config, resumed)
        writers = Writers(history, console, workdir, config, resumed)
        finished = False
        try:
            while int(step) < steps:
                step.assign_add(1)
                weights.assign(tf.sin(weights + tf.cast(step, weights.dtype)))
                now = int(step)
                of_step = {**row, "step": now, "time": time.time()}
                if now % every[0] == 0:
                    writers.write(of_step, steps)
                if now % every[2] == 0:
                    writers.write({**of_step, "split": "eval"}, steps)
                    writers.show()
                if now % every[1] == 0 or now == steps:
                    writers.flush()
                    checkpoints.save(now, {"total": 1.0 / now}, wait=False)
            checkpoints.wait()
            finished = True
        finally:
            try:
                checkpoints.wait()
            finally:
                writers.close(finished)
        workdir.done({"seconds": 1.0})
    voice(end)


def write_cases(cases, **job):
    """Runs of `write_as_a_fit` that no fault ends, one after another in this process.

    Args:
      cases: for each the folder and the environment of its fault. What the first run has left
        is copied to `left` in the folder before a second one goes on; what they said, and their
        exit codes, come into `result.json`.
      job: of each run.
    """
    for folder, disk in cases:
        results = []
        for environment in (disk, {**disk, "DISK_FAULT": "", "DISK_LOG": ""}):
            os.environ.update(environment)
            errors, code = io.StringIO(), 0
            with contextlib.redirect_stderr(errors):
                try:
                    write_as_a_fit(workdir=f"{folder}/run", end="written", **job)
                except TermwiseError as error:
                    print(f"error: {error}", file=sys.stderr)
                    code = 2
                except Exception:
                    traceback.print_exc()
                    code = 1
            results.append((code, errors.getvalue()))
            if environment is disk and os.path.exists(f"{folder}/run"):
                shutil.copytree(f"{folder}/run", f"{folder}/left")
        with open(f"{folder}/result.json", "w") as file:
            json.dump(results, file)
    say("returned")


def next_job():
    """The job that a new child is to do; None in the parent, when it has been told the last."""
    for line in sys.stdin:
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads is not to be forked"
        child = os.fork()
        if not child:
            say(f"started {os.getpid()}")
            return json.loads(line)
        # the child is not let go before the test knows: no signal may go to a stranger
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        say(f"ended {code}")
        sys.stdin.readline()
        os.waitpid(child, 0)
    return None


for number in (signal.SIGINT, signal.SIGTERM):  # however the tests were started
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
job = json.loads(sys.argv[1]) if len(sys.argv) > 1 else next_job()
if job is not None:
    if "stderr" in job:
        os.dup2(os.open(job.pop("stderr"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ.update(job.pop("disk", {}))
    program = write_as_a_fit if job.pop("only_writes", False) else train
    program = write_cases if "cases" in job else program
    if "exports" in job:
        from tests.trainer.persistence.exporting import export_cases as program

        job["cases"] = job.pop("exports")
        del job["go"]
    try:
        program(**job)
    except TermwiseError as error:  # which the command line tells in one line
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except SystemExit as stopped:  # preempted, or another host is gone
        print(stopped, file=sys.stderr, flush=True)
        raise
