"""Penalties of chosen variables: by hand, what a pattern matches, counted once, the Trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import Step, WeightPenalty
from trainer import Trainer


def init(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def build():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "tanh", kernel_initializer=init(1), name="hidden"),
            keras.layers.Dense(1, kernel_initializer=init(2), name="out"),
        ],
        name="net",
    )


def value(term, model):
    step = Step(x=tf.zeros([2, 3]), model=model, step=0, training=True)
    return float(term.call(step).value())


@keras.saving.register_keras_serializable(package="test_penalty")
def largest(variable):
    return tf.reduce_max(tf.abs(tf.convert_to_tensor(variable)))


def test_it_is_the_sum_over_the_variables_that_match():
    model = build()
    hidden, _, out, _ = (w.astype("float64") for w in model.get_weights())
    l2 = keras.regularizers.L2(0.5)
    both = 0.5 * (np.sum(hidden**2) + np.sum(out**2))
    assert value(WeightPenalty("*/kernel", l2), model) == pytest.approx(both, rel=1e-6)
    one = 0.5 * np.sum(out**2)
    assert value(WeightPenalty("out/kernel", l2), model) == pytest.approx(one, rel=1e-6)
    listed = WeightPenalty(["*/out/kernel", "out/*", "hidden/kernel"], largest)  # each once
    expected = np.abs(hidden).max() + np.abs(out).max()
    assert value(listed, model) == pytest.approx(expected, rel=1e-6)


def test_names_are_those_of_keras():
    model = build()
    expected = 0.01 * sum(np.abs(w).sum() for w in model.get_weights())
    assert value(WeightPenalty("*", "l1"), model) == pytest.approx(expected, rel=1e-5)


def train(build, terms, strategy="one_device", **arguments):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(26, 3)).astype("float32")
    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.05),
        loss="mse",
        terms=terms,
        strategy=strategy,
        **arguments,
    )
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(5)
    return trainer, trainer.fit(data, steps=20, log_every=1, verbose=False).rows


def test_it_trains_as_a_regularizer_of_the_layer_does():
    def regularized():
        model = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(4, "tanh", kernel_initializer=init(1), name="hidden"),
                keras.layers.Dense(
                    1, kernel_initializer=init(2), kernel_regularizer="l2", name="out"
                ),
            ],
            name="net",
        )
        return model

    one, rows = train(regularized, [])
    two, other_rows = train(build, [WeightPenalty("out/kernel", "l2")])
    for mine, theirs in zip(other_rows, rows, strict=True):
        expected = theirs["raw/regularization/net/out/kernel"]
        assert mine["raw/weight_penalty"] == pytest.approx(expected, rel=1e-6)
    for mine, theirs in zip(two.model.get_weights(), one.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_two_replicas_give_the_ledger_and_weights_of_one(two_replicas):
    def run(strategy):
        return train(build, [WeightPenalty("*/kernel", "l1", weight=3.0)], strategy)

    (one, rows), (two, other_rows) = run("one_device"), run(two_replicas)
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in ("total", "raw/weight_penalty"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-6), key
    for mine, theirs in zip(two.model.weights, one.model.weights, strict=True):
        np.testing.assert_allclose(
            mine.value.read_value(), theirs.value.read_value(), rtol=5e-6, atol=5e-6
        )


def test_it_trains_under_the_compiler_and_is_evaluated():
    terms = [WeightPenalty("*/kernel", largest)]
    row, (trainer, compiled) = train(build, terms)[1][-1], train(build, terms, jit_compile=True)
    assert compiled[-1]["total"] == pytest.approx(row["total"], rel=1e-5)
    x = np.zeros((7, 3), "float32")
    found = trainer.evaluate((x, x[:, :1]), batch_size=3)["raw/weight_penalty"]
    assert found == pytest.approx(sum(np.abs(trainer.model.get_weights()[i]).max() for i in (0, 2)))


@pytest.mark.parametrize("penalty", ["l1", largest, keras.regularizers.L1L2(0.1, 0.2)])
def test_it_is_saved_by_its_arguments(penalty):
    term = WeightPenalty(["hidden/*", "out/*"], penalty, weight=2.0, name="small")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(term))
    model = build()
    assert value(again, model) == value(term, model)
    assert again.name == "small" and again.weight == 2.0
    assert set(term.get_config()) == {"pattern", "penalty", "weight", "name", "trains"}


def test_a_pattern_that_matches_nothing_lists_the_paths():
    with pytest.raises(ValueError, match=r"'ot/kernel', which matches none.*net/hidden/kernel, "):
        value(WeightPenalty(["hidden/*", "ot/kernel"], "l2"), build())


@pytest.mark.parametrize(
    ("pattern", "penalty", "message"),
    [
        ("*", "l3", r"penalty='l3'\): give a name such as 'l2'"),
        ("*", None, r"penalty=None\)"),
        ("*", 0.1, r"penalty=0.1\)"),
        ([], "l2", r"pattern=\[\]\): give a pattern"),
        (None, "l2", r"pattern=None\)"),
        ([3], "l2", r"pattern=\[3\]\)"),
    ],
)
def test_what_is_no_pattern_or_penalty_is_an_error(pattern, penalty, message):
    with pytest.raises(ValueError, match=message):
        WeightPenalty(pattern, penalty)
