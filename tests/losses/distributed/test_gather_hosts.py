"""The examples of two hosts: the same values and gradients as on one, however they are split."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WORKER = """
import numpy as np
import tensorflow as tf
import losses

strategy = tf.distribute.MultiWorkerMirroredStrategy()
rng = np.random.default_rng(0)
x, kernel = rng.normal(size=(6, 4)).astype("float32"), rng.normal(size=(4, 3)).astype("float32")
labels = np.array([0, 1, 0, 2, 1, 2], "float32")
worker = strategy.cluster_resolver.task_id
with strategy.scope():
    variable = tf.Variable(kernel)


def sum_and_gradient(loss, x, y, kernel):
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        numerator = loss.ratio(y, tf.tanh(tf.matmul(x, kernel))).numerator
    return numerator, tape.gradient(numerator, kernel)


for loss in (losses.SupCon(0.5), losses.Triplet()):
    expected = sum_and_gradient(loss, tf.constant(x), tf.constant(labels), tf.constant(kernel))

    @tf.function(reduce_retracing=True)
    def step(x, y):
        def replica(x, y):
            found = sum_and_gradient(loss, x, y, tf.convert_to_tensor(variable))
            context = tf.distribute.get_replica_context()
            return [context.all_reduce(tf.distribute.ReduceOp.SUM, value) for value in found]

        return strategy.run(replica, args=(x, y))

    for split in (3, 5, 6):  # the last leaves one host without examples
        own = slice(None, split) if worker == 0 else slice(split, None)
        found = step(tf.constant(x[own]), tf.constant(labels[own]))
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-6)
print("equal")
"""


def free_addresses(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("localhost", 0))
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


@pytest.mark.very_slow
@pytest.mark.slow
def test_two_hosts_give_the_gradient_of_one():
    cluster = {"worker": free_addresses(2)}
    workers = []
    for index in range(2):
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps(config),
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
        }
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        ends = [worker.communicate(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for out, error in ends:
        assert out.strip() == "equal", error[-2000:]
