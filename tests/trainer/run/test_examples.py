"""The examples behind the terms: each one's value, its count, and the hardest of each term."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(21, 4)).astype("float32")
Y = X[:, :2] ** 2
WEIGHT = (np.arange(21) % 3).astype("float32")
KERNEL = RANDOM.normal(size=(4, 2)).astype("float32")


class Adds(keras.layers.Layer):
    """Adds one loss for each example."""

    def call(self, x):
        self.add_loss(0.1 * tf.reduce_sum(tf.square(x), -1))
        return x


class WithSize(Trainer):
    def compute_terms(self, step):
        return {**super().compute_terms(step), "size": tf.reduce_mean(step.y_pred, -1)}


def linear():
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(2, use_bias=False, kernel_regularizer="l2", name="w")(inputs)
    model = keras.Model(inputs, Adds(name="adds")(outputs), name="net")
    model.set_weights([KERNEL])
    return model


def made(strategy="one_device", **arguments):
    return WithSize(
        linear,
        optimizer="sgd",
        loss="mse",
        terms=[losses.term(lambda s: tf.reduce_mean(s.y_pred), name="scalar")],
        strategy=strategy,
        **arguments,
    )


@pytest.fixture(scope="module")
def alone():
    return made()


def test_each_example_has_its_value_of_each_term_in_the_order_of_the_data(alone):
    examples = alone.examples((X, Y, WEIGHT), batch_size=8)
    outputs = X @ KERNEL
    squares = np.mean((outputs - Y) ** 2, -1)
    expected = np.where(WEIGHT > 0, WEIGHT * squares, np.nan)
    assert list(examples) == ["mean_squared_error", "size", "add_loss/adds"]
    np.testing.assert_allclose(examples["mean_squared_error"], expected, rtol=1e-5)
    np.testing.assert_allclose(examples["size"], outputs.mean(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(examples["add_loss/adds"], 0.1 * np.sum(outputs**2, -1), rtol=1e-5)
    assert examples.counts["mean_squared_error"].tolist() == [1.0] * 21
    assert examples.counts["add_loss/adds"] is None
    assert examples.counted["mean_squared_error"].tolist() == (WEIGHT > 0).tolist()


def test_what_has_no_value_per_example_is_named(alone):
    examples = alone.examples((X, Y))
    assert examples.without == {
        "scalar": "it is one number of the batch",
        "regularization/w/kernel": "it is of no example: every replica computes the same",
    }
    with pytest.raises(KeyError, match="'scalar' has no value per example: it is one number"):
        examples["scalar"]
    with pytest.raises(KeyError, match="There are: 'mean_squared_error', 'size'"):
        examples["sizes"]
    assert "scalar: no value per example, it is one number of the batch" in str(examples)


def pixels(reduction):
    """A model of two outputs of [3, 2] elements whose mask leaves some time steps out."""
    inputs = keras.Input((3, 2))
    masked = keras.layers.Masking()(inputs)
    loss = losses.get("mse")
    loss.reduction = reduction
    return Trainer(
        keras.Model(inputs, keras.layers.Dense(2, name="dense")(masked)),
        optimizer="sgd",
        loss={"dense": loss},
        strategy="one_device",
    )


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_values_and_counts_give_the_raw_value_of_an_evaluation(reduction):
    keras.utils.set_random_seed(0)
    x = RANDOM.normal(size=(10, 3, 2)).astype("float32")
    x[np.arange(10) % 2 == 0, 1:] = 0.0
    x[4] = 0.0  # all of it is masked
    data = x, x**2, np.arange(10).astype("float32")
    trainer = pixels(reduction)
    name = "dense"
    examples = trainer.examples(data, batch_size=4)
    values, counts = examples[name].astype(float), examples.counts[name]
    raw = trainer.evaluate(data, batch_size=4)[f"raw/{name}"]
    total = np.nansum(values if counts is None else values * counts)
    assert total / (1 if counts is None else counts.sum()) == pytest.approx(raw, rel=1e-6)
    assert examples.raw(name) == pytest.approx(raw, rel=1e-6)
    assert np.flatnonzero(np.isnan(values)).tolist() == [0, 4]


def test_the_hardest_come_first_with_what_they_are(alone):
    hardest = alone.examples((X, Y, WEIGHT), batch_size=8, top=3)
    outputs = X @ KERNEL
    squares = WEIGHT * np.mean((outputs - Y) ** 2, -1)
    order = np.argsort(-squares)[:3]
    listed = hardest["mean_squared_error"]
    assert [example.index for example in listed] == order.tolist()
    first = listed[0]
    assert first.value == pytest.approx(squares[order[0]], rel=1e-5)
    np.testing.assert_array_equal(first.x, X[order[0]])
    np.testing.assert_array_equal(first.y, Y[order[0]])
    np.testing.assert_allclose(first.y_pred, outputs[order[0]], rtol=1e-5)
    assert first.sample_weight == 2.0
    assert first.terms["size"] == pytest.approx(outputs[order[0]].mean(), rel=1e-4)
    assert [e.index for e in hardest["size"]] == np.argsort(-outputs.mean(-1))[:3].tolist()


def test_of_equal_examples_the_first_is_the_harder(alone):
    x = np.repeat(X[:1], 9, axis=0)
    hardest = alone.examples((x, np.zeros((9, 2))), batch_size=2, top=4)
    assert [example.index for example in hardest["size"]] == [0, 1, 2, 3]


def same(examples, others):
    assert list(examples) == list(others) and examples.without == others.without
    for name in examples.of_examples:
        np.testing.assert_allclose(
            examples.of_examples[name], others.of_examples[name], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(examples.counted[name], others.counted[name])


def test_arrays_pipelines_two_replicas_and_other_ways_to_run_give_the_same(alone, two_replicas):
    data = X, Y, WEIGHT
    pipeline = tf.data.Dataset.from_tensor_slices(data).batch(5)
    examples = alone.examples(data, batch_size=4)
    same(alone.examples(pipeline), examples)
    same(made(run_eagerly=True).examples(data), examples)
    same(made(jit_compile=True).examples(data), examples)
    both = made(two_replicas)
    same(both.examples(pipeline), examples)  # the last batch is of one example
    hardest, others = both.examples(data, batch_size=4, top=2), alone.examples(data, top=2)
    same(hardest, others)
    for name in hardest:
        for one, other in zip(hardest[name], others[name], strict=True):
            assert one.index == other.index
            np.testing.assert_array_equal(one.x, other.x)
            np.testing.assert_allclose(one.y_pred, other.y_pred, rtol=1e-5)


def test_they_are_those_of_the_newest_checkpoint_and_of_averages(workdir):
    def trainer_of_run():
        optimizer = keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5)
        return Trainer(linear(), optimizer=optimizer, loss="mse", workdir=workdir)

    trainer = trainer_of_run()
    trainer.fit((X, Y), steps=3, batch_size=7, verbose=False)
    examples, raw = trainer.examples((X, Y)), trainer.evaluate((X, Y))["raw/mean_squared_error"]
    assert examples.raw("mean_squared_error") == pytest.approx(raw, rel=1e-6)
    same(trainer_of_run().examples((X, Y)), examples)


def test_they_are_written_as_arrays_and_as_a_table(alone, tmp_path):
    examples = alone.examples((X, Y, WEIGHT), top=2)
    path = examples.save(tmp_path / "new" / "examples", "the hardest")
    assert sorted(file.name for file in path.parent.iterdir()) == ["examples.npz", "examples.txt"]
    with np.load(path) as arrays:
        assert arrays["value/size"].tolist() == examples.of_examples["size"].tolist()
        assert arrays["counted/mean_squared_error"].sum() == 14
        assert "count/add_loss/adds" not in arrays and "count/size" in arrays
    lines = path.with_suffix(".txt").read_text().splitlines()
    assert lines[0] == "the hardest"
    head = ["example", "mean_squared_error", "size", "add_loss/adds", "y", "y_pred", "x"]
    assert lines[2].split() == head
    assert lines[3].split()[0] == str(examples["mean_squared_error"][0].index)


def test_a_loss_of_fewer_values_than_examples_is_named():
    def some(step):
        values = tf.boolean_mask(step.y_pred[:, 0], step.x[:, 0] > 0)
        return losses.Ratio.of_examples(values)

    trainer = Trainer(linear(), optimizer="sgd", loss="mse", terms=[losses.term(some)])
    count = int((X[:8, 0] > 0).sum())
    examples = trainer.examples((X, Y), batch_size=8, top=1)
    assert examples.without["some"] == f"it gave {count} values for a batch of 8 examples"
    assert "some" not in examples


def test_bad_input_is_told(alone):
    endless = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).repeat()
    with pytest.raises(ValueError, match=r"infinite. Give data that ends: .take\(batches\)"):
        alone.examples(endless)
    with pytest.raises(ValueError, match=r"examples\(top=0\): give a whole number"):
        alone.examples((X, Y), top=0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    trainer = Trainer(model, optimizer="sgd", loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"7.*outside the valid range|the label of example 2 is 7"):
        trainer.examples((X[:4], np.array([0, 1, 7, 2])))
