"""JAX as a contestant: the same models from the same weights, in a process of its own."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.in_jax import contestant
from benchmarks.in_jax.contestant import JaxProcess
from benchmarks.workloads import WORKLOADS, Workload


def jax_of(workload: Workload, name: str) -> JaxProcess:
    try:
        return JaxProcess(workload, name)
    except ImportError as error:
        pytest.skip(f"JAX is not installed ({error}): `make bench` installs it into .venv/jax")


def losses_of_keras(workload: Workload, steps: int) -> list[float]:
    """The losses of a loop written by hand over the arrays in their order."""
    model, optimizer, loss = workload.model(), workload.optimizer(), workload.loss()
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        # Keras squares a sparse gradient before it adds up words that a batch holds twice
        dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
        optimizer.apply(dense, model.trainable_variables)
        return value

    x, y = workload.arrays()
    batches = [slice(first, first + workload.batch) for first in range(0, len(x), workload.batch)]
    return [float(step(x[each], y[each])) for each in batches[:steps]]


@pytest.mark.parametrize(
    "name",
    [
        "mlp_16x64",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("mlp", "cnn", "lstm", "lstm_unrolled", "transformer")
        ),
    ],
)
def test_jax_has_the_losses_of_keras_from_equal_weights_and_batches(name):
    workload = WORKLOADS[name]()
    process = jax_of(workload, name)
    try:
        found = process.losses(12)
    finally:
        process.close()
    expected = losses_of_keras(workload, 12)
    assert len(set(expected)) == 12
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_round_of_jax_has_whole_epochs_and_says_what_processor_time_they_took():
    workload = WORKLOADS["mlp_16x64"]()
    process = jax_of(workload, "mlp_16x64")
    try:
        seconds = process(300)  # an epoch has 256 steps
        assert process.ran == 512
        assert seconds > 0
        assert process.cpu > 0
    finally:
        process.close()


def test_jax_is_left_out_where_it_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(contestant, "PROCESS", "import no_such_package")
    with pytest.raises(ImportError, match="No module named 'no_such_package'"):
        JaxProcess(WORKLOADS["mlp_16x64"](), "mlp_16x64")


def test_what_else_fails_in_the_process_is_no_missing_package(monkeypatch):
    monkeypatch.setattr(contestant, "PROCESS", "raise ValueError('of another kind')")
    with pytest.raises(RuntimeError, match="of another kind"):
        JaxProcess(WORKLOADS["mlp_16x64"](), "mlp_16x64")


def test_jax_is_looked_for_where_it_is_told_or_in_a_folder_of_the_environment(monkeypatch):
    monkeypatch.setenv("BENCHMARKS_JAX", "/elsewhere")
    assert str(contestant.installed_at()) == "/elsewhere"
    monkeypatch.delenv("BENCHMARKS_JAX")
    assert contestant.installed_at() == contestant.Path(sys.prefix) / "jax"
