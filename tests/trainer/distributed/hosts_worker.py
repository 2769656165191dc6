"""What each process of the tests on several hosts runs: cases of benchmarks/replica_cases.py.

Arguments: an output folder, the number of devices of this host, and names of cases.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

folder, devices, *names = sys.argv[1:]
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * int(devices),
)

# a host without GPUs has one device for TensorFlow, whatever logical ones there are
from tensorflow.python.distribute.collective_all_reduce_strategy import (  # noqa: E402
    CollectiveAllReduceExtended,
)

CollectiveAllReduceExtended._initialize_local_devices = lambda self, resolver, worker: (
    tuple(f"{worker}/device:CPU:{i}" for i in range(int(devices))),
    "CPU",
)

from benchmarks.replica_cases import CASES, SIZES, train, vectors  # noqa: E402
from benchmarks.replica_models import regularized  # noqa: E402
from trainer import Trainer, resolve_strategy  # noqa: E402

strategy = resolve_strategy("multi_worker")
assert strategy.num_replicas_in_sync == 2 * int(devices)
me = strategy.cluster_resolver.task_id


def own_parts(context):
    """This host's part of each batch; of the batch of one example the first host has none."""
    x, y, weight = vectors()

    def batches():
        start = 0
        for size in SIZES:
            hosts, host = context.num_input_pipelines, context.input_pipeline_id
            own = slice(start + size * host // hosts, start + size * (host + 1) // hosts)
            yield x[own], y[own], weight[own]
            start += size

    spec = tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in (x, y, weight))
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


def uneven(context):
    """The examples in batches of 8, the first host's 20 and the other's 77."""
    own = slice(0, 20) if context.input_pipeline_id == 0 else slice(20, None)
    return tf.data.Dataset.from_tensor_slices(tuple(a[own] for a in vectors())).batch(8)


def read_data():
    """Evaluations and predictions on several hosts."""
    trainer = Trainer(regularized, loss="mse", metrics=["mae"], strategy=strategy)
    x, y, weight = vectors()
    return {
        "arrays": trainer.evaluate((x, y, weight), batch_size=32),
        "own": trainer.evaluate(uneven),
        "predicted": trainer.predict(x, batch_size=32).tolist(),
    }


for index, name in enumerate(names):
    result = Path(folder) / f"{index}-{me}.json"
    if name == "reading":
        result.write_text(json.dumps(read_data()))
        continue
    case, _, data = name.partition(" | ")
    rows, held = train(CASES[case], strategy, data=own_parts if data else None)
    np.savez(
        Path(folder) / f"{index}-{me}.npz", **{k.replace("/", "|"): v for k, v in held.items()}
    )
    result.write_text(json.dumps(rows))
