"""A run that is continued: all that its steps keep comes back, on as many replicas or others."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

X = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
Y = X[:, :1] * 2 - 1
SAME = dict(rtol=0, atol=1e-7)  # one more step in a loop of another length rounds otherwise


class Counting(keras.layers.Layer):
    """A layer with a `tf.Variable` that trains, one that counts, and one in a dict."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(1.5)
        self.count = tf.Variable(0, trainable=False)
        self.means = {"x": tf.Variable(0.0, trainable=False, aggregation=MEAN)}

    def call(self, x, training=False):
        if training:
            self.count.assign_add(1)
            mean = self.means["x"]
            mean.assign(0.5 * mean + 0.5 * tf.reduce_mean(x))
        return x * self.scale + tf.cast(self.count, tf.float32) + self.means["x"]


MEAN = tf.VariableAggregation.MEAN


class Centred(losses.Term):
    """A term that keeps a running centre and the number of its steps, in variables of all kinds."""

    def __init__(self):
        super().__init__(name="centred")
        self.centre = tf.Variable(0.0, trainable=False)
        self.count = keras.Variable(0.0, trainable=False)
        self.shift = tf.Variable(0.5)

    def call(self, step):
        if step.training:
            self.count.assign(self.count + 1.0)
            self.centre.assign(0.7 * self.centre + 0.3 * tf.reduce_mean(step.x))
        scale = 1 + tf.convert_to_tensor(self.count)
        return tf.reduce_mean(tf.square(step.y_pred - self.centre - self.shift), -1) * scale


class Kept(Trainer):
    """A subclass that keeps a normalized projector, a closed-over counter, and a rate."""

    def build_model(self):
        keras.utils.set_random_seed(1)
        normal = keras.layers.BatchNormalization(momentum=0.5)
        self.projector = keras.Sequential([keras.Input((1,)), normal])
        self.rate = tf.Variable(0.25, trainable=False)
        counts = [tf.Variable(0.0, trainable=False, name="variable") for _ in range(3)]
        self.counted = lambda: [v.assign_add(1.0 + i) for i, v in enumerate(counts)]
        return keras.Sequential([keras.Input((3,)), Counting(), keras.layers.Dense(1)])

    def build_terms(self):
        return [Centred()]

    def compute_terms(self, step):
        projected = self.projector(step.y_pred, training=step.training)
        counts = self.counted() if step.training else [0.0]
        rate = self.rate * tf.add_n(counts)
        return {**super().compute_terms(step), "kept": rate * projected[:, 0] ** 2}


def fit(steps, workdir=None, strategy="one_device", make=Kept, **arguments):
    settings = dict(optimizer=keras.optimizers.Adam(0.05), loss="mse", metrics=["mae"])
    trainer = make(**{**settings, "strategy": strategy, "workdir": workdir, **arguments})
    history = trainer.fit(
        (X, Y), steps=steps, batch_size=16, log_every=4, shuffle=False, verbose=False
    )
    return trainer, history.rows[-1]


def values(trainer, row):
    variables = [*trainer.model.variables, *trainer.optimizer.variables]
    variables += trainer.loss_parameters.values()
    numbers = [np.ravel(tf.convert_to_tensor(v)) for v in variables]
    keys = [k for k in sorted(row) if k.split("/")[0] in ("total", "raw", "metrics", "weight")]
    return np.concatenate([*numbers, [row[key] for key in keys]])


def test_all_that_terms_layers_and_a_subclass_keep_goes_on(workdir):
    whole = values(*fit(8))
    fit(3, workdir)
    np.testing.assert_allclose(values(*fit(8, workdir)), whole, **SAME)


@pytest.mark.parametrize("before, after", [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_replicas(before, after, workdir, two_replicas):
    def build():
        keras.utils.set_random_seed(1)
        hidden = keras.layers.Dense(4, "tanh")
        return keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(1)])

    def make(**arguments):
        size = losses.term(lambda step: step.y_pred[:, 0] ** 2, name="size")
        weight = losses.UncertaintyWeight()  # made outside the strategy's scope
        return Trainer(build, terms=[size], loss_weights={"size": weight}, **arguments)

    def run(steps, workdir, replicas):
        strategy = two_replicas if replicas == 2 else "one_device"
        return values(*fit(steps, workdir, strategy, make))

    whole = run(8, None, 1)
    run(3, workdir, before)
    np.testing.assert_allclose(run(8, workdir, after), whole, rtol=5e-6, atol=5e-6)


def test_what_a_subclass_keeps_goes_on_with_another_number_of_replicas(workdir, two_replicas):
    """On two replicas each normalizes by its half, so the course is another; its state is one."""
    fit(3, workdir, two_replicas)
    again, row = fit(4, workdir, "one_device")
    assert float(tf.convert_to_tensor(again.terms[0].count)) == 4
    assert int(again.model.layers[0].count) == 4 and row["step"] == 4
    third, _ = fit(6, workdir, two_replicas)
    for count in two_replicas.experimental_local_results(third.model.layers[0].count):
        assert int(count) == 6


def test_draws_without_a_seed_are_no_reason_not_to_go_on(workdir, two_replicas):
    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            return x + keras.random.normal(tf.shape(x)) if training else x

    def make(**arguments):
        def build():
            return keras.Sequential([keras.Input((3,)), Noise(), keras.layers.Dense(1)])

        return Trainer(build, **arguments)

    for steps, strategy in ((2, two_replicas), (3, "one_device"), (4, two_replicas)):
        assert fit(steps, workdir, strategy, make=make)[1]["step"] == steps


def test_the_states_of_a_stateful_stack_do_not_trade_places(workdir):
    def run(steps, workdir=None):
        keras.utils.set_random_seed(1)
        cells = [keras.layers.LSTMCell(3, bias_initializer="ones") for _ in range(3)]
        stack = keras.layers.RNN(cells, stateful=True)
        model = keras.Sequential([keras.Input(batch_shape=(4, 5, 2)), stack, keras.layers.Dense(1)])
        trainer = Trainer(model, optimizer=keras.optimizers.SGD(0.1), loss="mse", workdir=workdir)
        x = np.random.default_rng(0).normal(size=(8, 5, 2)).astype("float32")
        arrays = x, x[:, 0, :1]
        trainer.fit(arrays, steps=steps, batch_size=4, shuffle=False, verbose=False)
        return [np.array(state) for state in keras.tree.flatten(stack.states)]

    whole = run(4)
    run(2, workdir)
    for mine, theirs in zip(run(4, workdir), whole, strict=True):
        np.testing.assert_allclose(mine, theirs, **SAME)
