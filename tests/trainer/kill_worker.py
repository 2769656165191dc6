"""A training program for tests that end it: runs one, or forks one for each line it is told.

    python kill_worker.py '{"workdir": "runs/a", "data": "arrays"}'      # one run
    python kill_worker.py                                                # a line of JSON for each

What has a state is in it: dropout, batch normalization, Adam's slots and averages, a loss
parameter, a train metric, the order of the data, a log window that saves fall into. It writes
what it does to stdout: `started 123`, `step 14`, `evaluating`, `evaluated`, `returned`, `ended -9`.

To spare each run the import of TensorFlow it is forked from a process that has imported it. That
is safe while that process has one thread and has run nothing; `main` checks both.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's library starts threads when it is imported

import keras
import numpy as np
import tensorflow as tf

import losses
import trainer.tensorboard  # a run that writes imports it
from trainer import Trainer, resolve_strategy

# Four cadences of which none divides all others.
STEPS, LOG, SAVE, VALIDATE = 600, 7, 20, 30
BATCH = 8


def tell(line):
    os.write(1, f"{line}\n".encode())  # whole, or not at all when the process is killed


class Masks(keras.layers.Layer):
    """Dropout that keeps the mask it drew last: 0 where it dropped, else 2; replicas' mean."""

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
    """Tells what the run does; `pause` seconds after each call make it last."""

    def __init__(self, pause):
        super().__init__()
        self.pause = pause

    def on_train_batch_end(self, batch, logs=None):
        tell(f"step {batch + 1}")
        time.sleep(self.pause)

    def on_test_begin(self, logs=None):
        tell("evaluating")

    def on_test_end(self, logs=None):
        tell("evaluated")


def build():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.BatchNormalization(),
            Masks(),
            keras.layers.Dense(1),
        ],
        name="net",
    )


def examples(kind):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 5)).astype("float32")
    arrays = x, (x[:, :1] - x[:, 1:2] ** 2).astype("float32")
    if kind == "arrays":  # shuffled anew in each epoch
        return arrays, arrays, {"batch_size": BATCH}
    data = tf.data.Dataset.from_tensor_slices(arrays)
    return data.shuffle(20, seed=4).batch(BATCH), arrays, {}


def train(workdir, data="arrays", strategy="one_device", pause=0.0, slow_step=0.0, **fit):
    """Trains to the end from wherever the workdir stands.

    Args:
      workdir: str, or None.
      data: "arrays" or "pipeline".
      strategy: a name.
      pause: seconds that the host sleeps between two calls of the loop.
      slow_step: seconds that each step waits for its batch, inside the call; for "pipeline".
      fit: further arguments of `Trainer.fit`.
    """
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
    source, validation, own = examples(data)
    if slow_step:
        source = source.map(lambda *batch: tf.numpy_function(_wait, [slow_step, *batch], _TYPES))
        source = source.map(lambda x, y: (tf.ensure_shape(x, [None, 5]), tf.ensure_shape(y, [None, 1])))
    settings = dict(steps=STEPS, log_every=LOG, checkpoint_every=SAVE, validate_every=VALIDATE)
    trained.fit(
        source,
        validation_data=validation,
        callbacks=[Events(pause)],
        keep_best=2,
        verbose=False,
        **{**settings, **own, **fit},
    )
    tell("returned")
    return trained


_TYPES = [tf.float32, tf.float32]


def _wait(seconds, *batch):
    time.sleep(seconds)
    return batch


def devices(number):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * number
    )


def next_job():
    """The job of a child; the parent stays here until stdin ends.

    The parent tells how a child ended before it lets go of its process number, so that whoever
    reads sends no signal to a stranger.
    """
    for line in sys.stdin:
        assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not be forked"
        child = os.fork()
        if not child:
            return json.loads(line)
        tell(f"started {child}")
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        sys.stdin.readline()
        tell(f"ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")
    return None


def main():
    pass
