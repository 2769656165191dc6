"""Consistency of two views: by hand, the seeds of the views, several outputs, the Trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from losses import Consistency, Step
from trainer import Trainer

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 2)).astype("float32")
X = RNG.normal(size=(6, 3)).astype("float32")


def linear():
    layer = keras.layers.Dense(2, use_bias=False, name="out")
    model = keras.Sequential([keras.Input((3,)), layer])
    model.set_weights([W])
    return model


def step_of(model, x=X, step=0):
    found = Step(x=x, model=model, step=step, training=True)
    found.y_pred = model(x, training=True)
    return found


def value(term, step):
    return float(term.call(step).value())


@keras.saving.register_keras_serializable(package="test_consistency")
def shifted(x, seeds):
    """Each example plus a number of its own."""
    noise = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([3], seed), seeds, fn_output_signature=tf.float32
    )
    return x + 0.3 * noise


def test_the_distance_between_the_two_views_by_hand():
    # outputs W x and W (2 x): the mean square of W x
    expected = np.mean((X @ W) ** 2)
    assert value(Consistency(lambda x: 2.0 * x), step_of(linear())) == pytest.approx(
        expected, rel=1e-5
    )
    term = Consistency(lambda x: 2.0 * x, "mae")
    assert value(term, step_of(linear())) == pytest.approx(np.mean(np.abs(X @ W)), rel=1e-5)


def test_a_distance_is_called_with_the_first_view_first():
    term = Consistency(lambda x: 3.0 * x, lambda first, second: tf.reduce_sum(second - first, -1))
    assert value(term, step_of(linear())) == pytest.approx(2 * np.mean((X @ W).sum(1)), rel=1e-5)


def test_the_same_view_has_no_distance():
    assert value(Consistency(lambda x: x), step_of(linear())) == 0.0


def test_gradients_flow_through_both_views_unless_stopped():
    def gradient(distance):
        model = linear()
        with tf.GradientTape() as tape:
            found = Consistency(lambda x: 2.0 * x, distance).call(step_of(model)).value()
        return tape.gradient(found, model.trainable_variables[0].value).numpy()

    whole = 2 * X.T @ (X @ W) / 12
    np.testing.assert_allclose(gradient("mse"), whole, rtol=1e-4)
    stopped = gradient(lambda a, b: tf.reduce_mean(tf.square(tf.stop_gradient(a) - b), -1))
    np.testing.assert_allclose(stopped, 2 * whole, rtol=1e-4)


def test_the_seeds_are_of_the_example_and_the_step():
    term = Consistency(shifted)
    whole = value(term, step_of(linear()))
    parts = [value(term, step_of(linear(), part)) for part in (X[:2], X[2:])]
    assert (2 * parts[0] + 4 * parts[1]) / 6 == pytest.approx(whole, rel=1e-6)
    assert value(term, step_of(linear(), X[::-1])) == pytest.approx(whole, rel=1e-6)
    assert value(term, step_of(linear(), step=1)) != pytest.approx(whole, rel=1e-3)
    assert value(Consistency(shifted, seed=1), step_of(linear())) != pytest.approx(whole, rel=1e-3)


def test_a_layer_augments_as_in_training():
    noise = keras.layers.GaussianNoise(1.0, seed=0)
    step = step_of(linear())
    assert value(Consistency(noise), step) > 0
    step.training = False
    assert value(Consistency(noise), step) == 0.0
    assert Consistency(noise).variables == noise.variables


def init(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def build():
    x = keras.Input((3,))
    h = keras.layers.Dense(8, "tanh", kernel_initializer=init(1), name="hidden")(x)
    h = keras.layers.BatchNormalization(name="norm", trainable=False)(h)
    label = keras.layers.Dense(4, "softmax", kernel_initializer=init(2), name="label")(h)
    size = keras.layers.Dense(1, kernel_initializer=init(3), name="size")(h)
    return keras.Model(x, {"label": label, "size": size})


def train(strategy, steps=20, terms=None, **arguments):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(26, 3)).astype("float32"), rng.integers(0, 4, 26)
    if terms is None:
        terms = [Consistency(shifted, {"label": "kld", "size": "mse"}, weight=0.5)]
    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.05),
        loss={"label": "sparse_categorical_crossentropy", "size": "mse"},
        terms=terms,
        strategy=strategy,
        **arguments,
    )
    data = tf.data.Dataset.from_tensor_slices((x, {"label": y, "size": x[:, :1]})).batch(5)
    return trainer, trainer.fit(data, steps=steps, log_every=1, verbose=False).rows


def test_several_distances_are_sub_terms():
    _, rows = train("one_device", 1)
    model, x = build(), np.random.default_rng(0).normal(size=(26, 3)).astype("float32")[:5]
    step = step_of(model, x)
    term = Consistency(shifted, {"label": "kld", "size": "mse"})
    for name, ratio in term.call(step).items():
        found = rows[0][f"raw/consistency/{name}"]
        assert found == pytest.approx(float(ratio.value()), rel=1e-4)
        assert rows[0][f"weight/consistency/{name}"] == 0.5
    assert rows[0]["total"] == pytest.approx(
        sum(v for k, v in rows[0].items() if k.startswith("terms/")), rel=1e-6
    )


def test_two_replicas_give_the_ledger_and_weights_of_one(two_replicas):
    (one, rows), (two, other_rows) = train("one_device"), train(two_replicas)
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in theirs:
            if key.startswith(("raw/", "total")):
                assert mine[key] == pytest.approx(theirs[key], rel=1e-6, abs=1e-7), key
    for mine, theirs in zip(two.model.weights, one.model.weights, strict=True):
        np.testing.assert_allclose(
            mine.value.read_value(), theirs.value.read_value(), rtol=5e-6, atol=5e-6
        )


def test_it_trains_under_the_compiler():
    def run(**arguments):
        terms = [Consistency(lambda x: x + 0.1, {"label": "kld"})]
        return train("one_device", 4, terms, **arguments)[1][-1]

    row, compiled = run(), run(jit_compile=True)
    assert compiled["raw/consistency"] == pytest.approx(row["raw/consistency"], rel=1e-4)
    assert compiled["total"] == pytest.approx(row["total"], rel=1e-5)


def test_it_is_saved_by_its_arguments():
    term = Consistency(shifted, "mae", seed=3, weight=2.0, name="views")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(term))
    assert again.augment is shifted
    assert again.get_config() == term.get_config()
    step = step_of(linear())
    assert value(again, step) == value(term, step)


def test_what_cannot_augment_or_measure_is_an_error():
    with pytest.raises(TypeError, match=r"augment='flip'\): give a function of the inputs"):
        Consistency("flip")
    with pytest.raises(ValueError, match="meen"):
        Consistency(lambda x: x, "meen_squared_error").call(step_of(linear()))
