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

from benchmarks.replica_cases import CASES, train  # noqa: E402
from trainer import resolve_strategy  # noqa: E402

strategy = resolve_strategy("multi_worker")
assert strategy.num_replicas_in_sync == 2 * int(devices)
me = strategy.cluster_resolver.task_id
for index, name in enumerate(names):
    rows, held = train(CASES[name], strategy)
    np.savez(
        Path(folder) / f"{index}-{me}.npz", **{k.replace("/", "|"): v for k, v in held.items()}
    )
    (Path(folder) / f"{index}-{me}.json").write_text(json.dumps(rows))
