"""How many reductions a step has: none in one memory, as few as can be elsewhere."""

import collections

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
import trainer.distributed.reduce
from trainer import Trainer
from trainer.data.batch import share

SIZE = 8


def dataset(static, weights=False):
    x = np.linspace(-1, 1, 4 * SIZE * 3, dtype=np.float32).reshape(-1, 3)
    arrays = (x, x[:, :1] ** 2)
    if weights:
        arrays = (*arrays, np.abs(x[:, 0]) + 0.1)
    return tf.data.Dataset.from_tensor_slices(arrays).batch(SIZE, drop_remainder=static)


def model():
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(4, activation="tanh", kernel_regularizer="l2", name="hidden")
    return keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(1)], name="model")


def operations(strategy, data, build=model, **arguments):
    """type -> number of operations of a traced training step, calls opened."""
    arguments = {"loss": "mse", **arguments}
    run = Trainer(build, optimizer="sgd", strategy=strategy, **arguments)
    run.fit(data, steps=1, verbose=False)
    (step,) = run._run.programs.steps
    graph = step.function.graph.as_graph_def()
    nodes = [*graph.node, *(n for one in graph.library.function for n in one.node_def)]
    return collections.Counter(node.op for node in nodes)


def collectives(strategy, monkeypatch, *given, **arguments):
    """Reductions of a step on devices that share no memory; one operation for each device."""
    monkeypatch.setattr(trainer.distributed.reduce, "shares_memory", lambda strategy: False)
    found = operations(strategy, *given, **arguments)["CollectiveReduceV2"]
    assert not found % 2
    return found // 2


@pytest.mark.parametrize("static", [True, False])
def test_devices_that_share_a_memory_need_no_collective(static, two_replicas):
    assert operations(two_replicas, dataset(static))["CollectiveReduceV2"] == 0


def test_sums_and_moving_statistics_go_with_the_gradients(two_replicas, monkeypatch):
    def normalized():
        layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        return keras.Sequential([keras.Input((3,)), *layers])

    assert collectives(two_replicas, monkeypatch, dataset(True), build=normalized) == 1


def test_denominators_that_the_data_decides_are_summed_before(two_replicas, monkeypatch):
    weighted = dataset(True, weights=True)
    # a weighted mean: the weights' sum is known only when they are read
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    assert collectives(two_replicas, monkeypatch, weighted, loss=loss) == 2
    assert collectives(two_replicas, monkeypatch, dataset(False)) == 2


def test_a_term_with_a_root_needs_its_sums_before(two_replicas, monkeypatch):
    def root(step):
        square = tf.square(step.y_pred - step.y)
        return losses.Ratio(tf.reduce_sum(square), tf.cast(tf.size(square), tf.float32), tf.sqrt)

    terms = [losses.term(root, name="root")]
    assert collectives(two_replicas, monkeypatch, dataset(True), loss=None, terms=terms) == 2


def test_large_gradients_are_reduced_alone(two_replicas, monkeypatch):
    monkeypatch.setitem(trainer.distributed.reduce.PACK_BYTES, "CPU", 40)
    # from the last: sums of 4 * (2 terms * 2 + 2) = 24 bytes and a bias of 4; a kernel of 16 and
    # a bias of 16; the first kernel, of 48
    assert collectives(two_replicas, monkeypatch, dataset(True)) == 3


@pytest.mark.parametrize("way", ["in memory", "by collectives"])
def test_a_model_of_two_dtypes_trains_on_two_replicas(way, two_replicas, monkeypatch):
    if way == "by collectives":
        monkeypatch.setattr(trainer.distributed.reduce, "shares_memory", lambda strategy: False)

    def build():
        keras.utils.set_random_seed(0)
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, activation="tanh", dtype="float64"),
                keras.layers.Dense(1, dtype="float32"),
            ]
        )

    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    y = x[:, :1] ** 2

    def weights(strategy):
        sgd = keras.optimizers.SGD(0.1)
        run = Trainer(build, optimizer=sgd, loss="mse", strategy=strategy)
        run.fit((x, y), steps=3, batch_size=8, verbose=False)
        return run.model.get_weights()

    for one, two in zip(weights("one_device"), weights(two_replicas), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("way", ["in memory", "by collectives"])
def test_rows_are_those_of_one_replica(static, way, two_replicas, monkeypatch):
    if way == "by collectives":
        monkeypatch.setattr(trainer.distributed.reduce, "shares_memory", lambda strategy: False)

    def rows(strategy):
        run = Trainer(model, optimizer="sgd", loss="mse", metrics=["mae"], strategy=strategy)
        history = run.fit(dataset(static), steps=6, log_every=2, verbose=False)
        evaluated = run.evaluate(dataset(static))
        predicted = run.predict(dataset(static).map(lambda x, y: x))
        left_out = "steps_per_second", "examples_per_second", "time", "split"
        kept = [{k: v for k, v in row.items() if k not in left_out} for row in history.rows]
        return kept, evaluated, predicted

    one, two = rows("one_device"), rows(two_replicas)
    assert two[0] == [pytest.approx(row, rel=2e-6) for row in one[0]]
    assert two[1] == pytest.approx(one[1], rel=2e-6)
    np.testing.assert_allclose(two[2], one[2], rtol=1e-5, atol=1e-6)


def test_parts_of_a_static_batch_are_static():
    @tf.function(autograph=False)
    def parts(batch):
        found = [share(batch, replica, 2) for replica in range(2)]
        assert [alive for _, alive in found] == [None, None]
        assert found[0][0]["x"].shape == [2, 3] and found[0][0]["w"].shape == [2]
        return [part for part, _ in found]

    batch = {"x": tf.reshape(tf.range(12), [4, 3]), "w": tf.range(4)}
    first, second = parts(batch)
    np.testing.assert_array_equal(first["w"], [0, 1])
    np.testing.assert_array_equal(second["w"], [2, 3])
    np.testing.assert_array_equal(second["x"], [[6, 7, 8], [9, 10, 11]])


def test_parts_of_an_uneven_static_batch_say_who_has_examples():
    (first, has), (_, has_not) = (share(tf.range(1), replica, 2) for replica in (1, 0))
    np.testing.assert_array_equal(first, [0])
    assert (float(has), float(has_not)) == (1.0, 0.0)
