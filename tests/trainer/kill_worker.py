"""A training program for tests that end it: one run, or one forked for each job it is told.

    python kill_worker.py '{"workdir": "runs/a"}'       # one run; the keys are those of `train`
    python kill_worker.py                               # a job in JSON for each line of stdin

All that has a state is in it: dropout, batch normalization, Adam's slots and averages, a loss
parameter, a train metric, the order of the data, log windows into which checkpoints fall. It
says on stdout what it does: `started 123` (the process), `call from 7`, `step 14`, `evaluating`,
`evaluated`, `returned`, `ended -9`; after `ended` it waits for an empty line.

To spare each run the import of TensorFlow, runs are forked from a process that has imported it.
That is safe while this process has one thread and TensorFlow has run nothing: `next_job` checks it.
"""

import json
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's library would start threads when imported

import keras
import numpy as np
import tensorflow as tf

import losses
import trainer.ledger.tensorboard  # noqa: F401  imported by a run that writes
from trainer import Trainer, resolve_strategy

# no cadence divides all others: windows go on over checkpoints, checkpoints come between rows
SETTINGS = {"steps": 600, "log_every": 7, "checkpoint_every": 20, "validate_every": 30}


def say(line):
    os.write(1, f"{line}\n".encode())  # whole, even when the process is killed


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
    """Says what the run does; sleeps `pause` seconds after each call of the loop."""

    def __init__(self, pause):
        super().__init__()
        self.pause = pause

    def on_train_batch_begin(self, batch, logs=None):
        say(f"call from {batch}")

    def on_train_batch_end(self, batch, logs=None):
        say(f"step {batch + 1}")
        time.sleep(self.pause)

    def on_test_begin(self, logs=None):
        say("evaluating")

    def on_test_end(self, logs=None):
        say("evaluated")


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


def train(workdir=None, data="arrays", devices=1, strategy="one_device", pause=0, **fit):
    """Trains to the end from wherever the workdir stands.

    Args:
      workdir: a path, or None.
      data: "arrays" or "pipeline", both shuffled.
      devices: how many logical devices the CPU is made.
      strategy: a name.
      pause: seconds that the host sleeps after each call of the loop.
      fit: arguments of `Trainer.fit` beside `SETTINGS`.
    """
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * devices,
    )
    strategy = resolve_strategy(strategy)
    keras.utils.set_random_seed(0)
    trained = Trainer(
        build,
        optimizer=keras.optimizers.Adam(0.01, use_ema=True),
        loss="mse",
        loss_weights=losses.UncertaintyWeight(),
        metrics=["mae"],
        strategy=strategy,
        workdir=workdir,
    )
    x = np.random.default_rng(3).normal(size=(50, 5)).astype("float32")
    arrays = x, x[:, :1] - x[:, 1:2] ** 2
    given = {**SETTINGS, "validation_data": arrays, "keep_best": 2, "verbose": False}
    source = arrays
    if data == "arrays":
        given["batch_size"] = 8
    else:
        source = tf.data.Dataset.from_tensor_slices(arrays).shuffle(20, seed=4).batch(8)
    trained.fit(source, callbacks=[Events(pause)], **{**given, **fit})
    say("returned")


def next_job():
    """The job that a new child is to do; None in the parent, when it has been told the last."""
    for line in sys.stdin:
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads is not to be forked"
        child = os.fork()
        if not child:
            return json.loads(line)
        say(f"started {child}")
        # the child is not let go before the test knows: no signal may go to a stranger
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        say(f"ended {code}")
        sys.stdin.readline()
        os.waitpid(child, 0)
    return None


job = json.loads(sys.argv[1]) if len(sys.argv) > 1 else next_job()
if job is not None:
    if "stderr" in job:
        os.dup2(os.open(job.pop("stderr"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    try:
        train(**job)
    except SystemExit as stopped:  # preempted, or another host is gone
        print(stopped, file=sys.stderr, flush=True)
        raise
