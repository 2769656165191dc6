"""The tf.data service, as docs/distributed.md has it: the same batches in order, made elsewhere."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer

service = tf.data.experimental.service
SPEC = (tf.TensorSpec([2]), tf.TensorSpec([1]))
X = np.arange(80, dtype="float32").reshape(40, 2)


def prepare(index, x):
    """Stands for a costly map; random, but a function of the example's index."""
    noise = tf.random.stateless_normal(tf.shape(x), [7, tf.cast(index, tf.int32)])
    return x / 80 + 0.1 * noise, tf.reduce_sum(x, keepdims=True) / 80


def batches():
    """Global batches of 6, the last of each epoch of 4, in a new order in each epoch."""
    examples = tf.data.Dataset.from_tensor_slices(X).enumerate()
    return examples.shuffle(40, seed=3).batch(6)


def prepared(dataset):
    return dataset.map(lambda index, x: tf.map_fn(lambda one: prepare(*one), (index, x), SPEC))


def served(dataset, prepared, targets):
    """`prepared(dataset)`, batch i made by server i modulo their number."""
    shards = [
        prepared(dataset.shard(len(targets), turn)).apply(
            service.distribute(service.ShardingPolicy.OFF, target)
        )
        for turn, target in enumerate(targets)
    ]
    turns = tf.data.Dataset.range(len(targets)).repeat()
    return tf.data.Dataset.choose_from_datasets(shards, turns)


@pytest.fixture(scope="module")
def targets():
    """The addresses of three servers on loopback, each a dispatcher with one worker."""
    dispatchers = [service.DispatchServer() for _ in range(3)]
    workers = [
        service.WorkerServer(
            service.WorkerConfig(dispatcher_address=one.target.partition("://")[2])
        )
        for one in dispatchers
    ]
    yield [one.target for one in dispatchers]
    gc.collect()  # what still reads from them, whatever its age: a server waits for it
    workers.clear()
    dispatchers.clear()


def arrays(dataset, number):
    return [tf.nest.map_structure(np.array, batch) for batch in dataset.take(number)]


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_the_batches_are_those_of_the_plain_pipeline_in_order(targets, servers):
    # 7 batches an epoch: no number of servers divides it
    repeated = batches().repeat()
    plain = arrays(prepared(repeated), 21)
    found = arrays(served(repeated, prepared, targets[:servers]), 21)
    assert len(found) == len(plain) == 21
    for (x, y), (plain_x, plain_y) in zip(found, plain, strict=True):
        np.testing.assert_array_equal(x, plain_x)
        np.testing.assert_array_equal(y, plain_y)
    assert [len(x) for x, _ in found[:7]] == [6] * 6 + [4]
    assert not np.array_equal(found[0][0], found[7][0])


@pytest.mark.parametrize("servers", [1, 2, 3])
def test_a_finite_dataset_ends_where_the_plain_one_does(targets, servers):
    found = served(batches(), prepared, targets[:servers])
    assert [len(x) for x, _ in arrays(found, 100)] == [6] * 6 + [4]


def test_each_host_reads_its_part_of_each_global_batch(targets):
    def host(index, hosts=2):
        def part(*batch):
            start, end = (turn * tf.shape(batch[0])[0] // hosts for turn in (index, index + 1))
            return tuple(rows[start:end] for rows in batch)

        return served(batches().repeat().map(part), prepared, targets[:2])

    parts = zip(arrays(host(0), 7), arrays(host(1), 7), strict=True)
    for (first, second), (x, _) in zip(parts, arrays(prepared(batches()), 7), strict=True):
        np.testing.assert_array_equal(np.concatenate([first[0], second[0]]), x)


def fit(data, workdir=None, steps=12):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="adam", loss="mse", workdir=workdir)
    trainer.fit(data, steps=steps, checkpoint_every=4, verbose=False)
    return model.get_weights()


@pytest.mark.very_slow
def test_training_on_it_gives_the_weights_of_the_plain_pipeline(targets, workdir):
    repeated = batches().repeat()
    plain = fit(prepared(repeated))
    found = served(repeated, prepared, targets[:2])
    fit(found, workdir, steps=5)
    # the second call starts new readers, which skip what the run has seen
    for one, other in zip(fit(found, workdir), plain, strict=True):
        np.testing.assert_array_equal(one, other)
