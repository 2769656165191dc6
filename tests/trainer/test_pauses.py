"""Terms whose scheduled weight is 0 for a while: absent from the rows, and not computed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.objective.weights import Weight, find_pauses
from trainer import Trainer

RNG = np.random.default_rng(1)
X, Y = (RNG.normal(size=(64, n)).astype(np.float32) for n in (3, 1))
STEPS = 45


def model():
    keras.utils.set_random_seed(0)
    x = keras.Input([3])
    hidden = keras.layers.Dense(4, activation="tanh")(x)
    return keras.Model(x, [keras.layers.Dense(1, name=n)(hidden) for n in ("y", "other")])


def late(step):
    """A term that alone reaches the second head."""
    return tf.reduce_sum(tf.square(step.y_pred[1] - 1.0), -1)


PAUSES = losses.schedules.PiecewiseConstant([12, 20, 33], [0.0, 0.5, 0.0, 2.0])


def by_hand():
    """Adam, with the weight 0 where the term pauses."""
    network, optimizer = model(), keras.optimizers.Adam(0.02)
    for number in range(STEPS):
        start = number % 4 * 16
        x, y = X[start : start + 16], Y[start : start + 16]
        weight = float(PAUSES(number))
        with tf.GradientTape() as tape:
            outputs = network(x)
            total = tf.reduce_mean(tf.square(outputs[0] - y))
            total += weight * tf.reduce_mean(tf.square(outputs[1] - 1.0))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
    return network.get_weights()


def make(**settings):
    terms = [losses.term(late, weight=PAUSES)]
    optimizer = keras.optimizers.Adam(0.02)
    return Trainer(model, loss=["mse", None], terms=terms, optimizer=optimizer, **settings)


def trained(steps=STEPS, data=(X, Y), **settings):
    trainer = make(**settings)
    fit = {"batch_size": 16, "shuffle": False, "log_every": 1, "verbose": False}
    return trainer, trainer.fit(data, steps=steps, **fit)


@pytest.mark.parametrize("settings", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_a_term_that_pauses_is_absent_and_the_weights_are_those_of_weight_0(settings):
    trainer, first = trained(5, **settings)
    history = trainer.fit(
        (X, Y), batch_size=16, shuffle=False, log_every=1, steps=STEPS, verbose=False
    )
    assert first.rows[0]["raw/late"] is None
    for mine, theirs in zip(trainer.model.get_weights(), by_hand(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)
    seen = {row["step"]: row["raw/late"] is not None for row in history.rows}
    assert seen == {step + 1: float(PAUSES(step)) != 0 for step in range(5, STEPS)}
    paused = next(row for row in history.rows if row["step"] == 26)
    assert paused["total"] == paused["raw/y"]


def test_on_two_replicas_it_is_the_same(two_replicas):
    trainer, _ = trained(strategy=two_replicas)
    for mine, theirs in zip(trainer.model.get_weights(), by_hand(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)


def test_what_pauses_is_not_computed():
    calls = []

    def counted(step):
        tf.py_function(lambda: calls.append(1), [], [])
        return late(step)

    trainer = Trainer(
        model, loss=["mse", None], terms=[losses.term(counted, weight=PAUSES)], optimizer="sgd"
    )
    trainer.fit((X, Y), batch_size=16, steps=STEPS, verbose=False)
    assert len(calls) == 8 + 12  # steps 12 to 19, and 33 to 44


def test_a_run_killed_in_a_pause_goes_on_exactly(tmp_path):
    whole, _ = trained()
    for steps in (7, 25, STEPS):
        parts, _ = trained(steps, workdir=tmp_path / "run")
    for mine, theirs in zip(parts.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_only_what_a_schedule_holds_at_0_for_ten_steps_pauses():
    weights = {
        "ramp": losses.schedules.Linear(0.0, 1.0, 100),
        "late": losses.schedules.Linear(0.0, 1.0, 100, start=10),
        "short": losses.schedules.PiecewiseConstant([5, 14], [1.0, 0.0, 1.0]),
        "constant": 0.0,
        "dial": tf.Variable(0.0),
        "own": lambda step: tf.where(step < 3000, 1.0, 0.0),
    }
    pauses = find_pauses({name: Weight(w, name) for name, w in weights.items()}, 5000)
    assert set(pauses.weights) == {"late", "own"}
    assert pauses.sets == (frozenset({"late"}), frozenset({"own"}), frozenset())
    for step, index in ((0, 0), (10, 0), (11, 2), (2999, 2), (3000, 1)):
        assert int(pauses.which(tf.constant(step, tf.int64))) == index


def test_no_pause_costs_no_trace():
    for weight in (1.0, losses.schedules.Linear(0.0, 1.0, 100)):  # 0 at the first step alone
        terms = [losses.term(late, weight=weight)]
        trainer = Trainer(model, loss=["mse", None], terms=terms, optimizer="sgd")
        trainer.fit((X, Y), batch_size=16, steps=20, verbose=False)
        assert trainer._run.programs.traces == 1


def test_accumulated_steps_compute_what_pauses():
    optimizer = keras.optimizers.SGD(0.02, gradient_accumulation_steps=2)
    trainer = Trainer(
        model, loss=["mse", None], terms=[losses.term(late, weight=PAUSES)], optimizer=optimizer
    )
    history = trainer.fit((X, Y), batch_size=16, steps=20, log_every=1, verbose=False)
    assert all(row["raw/late"] > 0 for row in history.rows)


def test_a_weight_that_reads_a_variable_or_draws_pauses_never():
    dial = tf.Variable(0.0, trainable=False)
    weights = {
        "dial": lambda step: dial * 1.0,
        "draws": lambda step: tf.floor(tf.random.uniform([])),
    }
    pauses = find_pauses({name: Weight(w, name) for name, w in weights.items()}, 50)
    assert pauses.weights == {}
