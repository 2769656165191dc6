"""Several hosts give the answer of one: local processes together, against one replica."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.replica_cases import CASES, differences, train, vectors
from benchmarks.replica_models import regularized
from trainer import Trainer

ROOT = Path(__file__).resolve().parents[3]
WORKER = Path(__file__).with_name("hosts_worker.py")
TWO_HOSTS = [
    "mean_with_sample_weight",
    "a mask",
    "a batch-level root",
    "a constraint",
    "several sources",
    "a contrastive loss",
    "clipping by global norm",
    "accumulation",
    "an inf on one replica",
    "a weight that learns, clipped with the others",
    "mean_with_sample_weight | own data",
]
TWO_BY_TWO = [
    *("a mask", "a contrastive loss", "accumulation", "synchronized normalization"),
    "several sources",
]


def free_addresses(number):
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def run_workers(number, arguments, timeout=240):
    """Runs the worker program in `number` processes; raises with their output if one fails."""
    cluster = {"worker": free_addresses(number)}
    workers = []
    for index in range(number):
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps(config),
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
            "TERMWISE_STARTUP_S": "100",
        }
        workers.append(
            subprocess.Popen(
                [sys.executable, str(WORKER), *map(str, arguments)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [worker.communicate(timeout=timeout)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, output in zip(workers, outputs, strict=True):
        assert worker.returncode == 0, output[-4000:]


def read(folder, index, worker):
    rows = json.loads((folder / f"{index}-{worker}.json").read_text())
    with np.load(folder / f"{index}-{worker}.npz") as file:
        return rows, {name.replace("|", "/"): file[name] for name in file.files}


@pytest.mark.parametrize(
    "devices, names",
    [
        pytest.param(1, TWO_HOSTS, marks=pytest.mark.very_slow),
        pytest.param(2, TWO_BY_TWO, marks=pytest.mark.slow),
    ],
)
def test_two_hosts_give_the_weights_of_one_device(devices, names, tmp_path):
    run_workers(2, [tmp_path, devices, *names])
    for index, name in enumerate(names):
        one = train(CASES[name.partition(" | ")[0]], "one_device")
        chief, other = read(tmp_path, index, 0), read(tmp_path, index, 1)
        ledger, weights = differences(one, chief)
        assert ledger <= 1e-6 and weights <= 5e-6, (name, ledger, weights)
        assert differences(chief, other) == (0.0, 0.0), name


@pytest.mark.slow
def test_two_hosts_evaluate_and_predict_as_one_device(tmp_path):
    run_workers(2, [tmp_path, 1, "reading"])
    trainer = Trainer(regularized, loss="mse", metrics=["mae"], strategy="one_device")
    x, y, weight = vectors()
    expected = trainer.evaluate((x, y, weight), batch_size=32)
    for worker in range(2):
        found = json.loads((tmp_path / f"0-{worker}.json").read_text())
        assert found["arrays"] == pytest.approx(expected, rel=1e-6)
        assert found["own"] == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(found["predicted"], trainer.predict(x), rtol=1e-5, atol=1e-6)
