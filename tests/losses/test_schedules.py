"""Schedules: by hand, at their ends, beside Keras's own, under XLA and far into a long run."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import schedules

EVERY = [
    schedules.Linear(0.1, 0.7, steps=7, start=3),
    schedules.Cosine(1.0, 0.3, steps=11),
    schedules.Cyclical(period=10, final=0.3, ramp=0.7, cycles=4),
    schedules.PiecewiseConstant(boundaries=[5, 9], values=[1.0, 0.5, 0.1]),
]
every_schedule = pytest.mark.parametrize("schedule", EVERY, ids=lambda s: type(s).__name__)


def values(schedule, steps):
    return [float(schedule(step)) for step in steps]


def test_linear_by_hand():
    schedule = schedules.Linear(2.0, 4.0, steps=4, start=10)
    assert values(schedule, [0, 10, 11, 12, 13, 14, 99]) == [2.0, 2.0, 2.5, 3.0, 3.5, 4.0, 4.0]


def test_cosine_by_hand():
    schedule = schedules.Cosine(0.0, 2.0, steps=4)
    root = 0.5**0.5
    expected = [0.0, 1 - root, 1.0, 1 + root, 2.0, 2.0]
    np.testing.assert_allclose(values(schedule, range(6)), expected, atol=1e-7)


def test_cyclical_by_hand():
    schedule = schedules.Cyclical(period=8, ramp=0.5, cycles=2)
    cycle = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]
    assert values(schedule, range(18)) == [*cycle, *cycle, 1.0, 1.0]
    assert values(schedules.Cyclical(period=8), range(16, 24)) == cycle


def test_piecewise_constant_by_hand():
    schedule = schedules.PiecewiseConstant(boundaries=[2, 4], values=[1.0, 0.5, 0.25])
    assert values(schedule, range(6)) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert values(schedules.PiecewiseConstant(boundaries=[], values=[3.0]), [0, 7]) == [3.0, 3.0]


def test_linear_and_cosine_are_kerass_own_in_between():
    linear = keras.optimizers.schedules.PolynomialDecay(0.3, 50, 0.9)
    cosine = keras.optimizers.schedules.CosineDecay(0.9, 50, alpha=1 / 3)
    steps = range(0, 70, 3)
    np.testing.assert_allclose(
        values(schedules.Linear(0.3, 0.9, steps=50), steps), values(linear, steps), rtol=1e-6
    )
    np.testing.assert_allclose(
        values(schedules.Cosine(0.9, 0.3, steps=50), steps), values(cosine, steps), rtol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(
    initial=st.floats(-1e3, 1e3, width=32, allow_subnormal=False),  # TensorFlow makes those 0
    final=st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
    steps=st.integers(1, 10**9),
    start=st.integers(0, 10**9),
    kind=st.sampled_from([schedules.Linear, schedules.Cosine]),
)
def test_the_end_points_are_exact_and_nothing_lies_outside(initial, final, steps, start, kind):
    schedule = kind(initial, final, steps=steps, start=start)
    assert float(schedule(start)) == np.float32(initial)
    assert float(schedule(start + steps)) == np.float32(final)
    between = float(schedule(start + steps // 2))
    slack = 1e-6 * (abs(initial) + abs(final))
    assert min(initial, final) - slack <= between <= max(initial, final) + slack


def test_steps_beyond_float32_are_told_apart():
    at = 2**24 + 1  # the first whole number that float32 lacks
    schedule = schedules.PiecewiseConstant(boundaries=[at], values=[0.0, 1.0])
    assert values(schedule, [at - 1, at]) == [0.0, 1.0]
    linear = schedules.Linear(0.0, 1.0, steps=2, start=2**40)
    assert values(linear, [2**40, 2**40 + 1, 2**40 + 2]) == [0.0, 0.5, 1.0]


@every_schedule
def test_the_value_is_a_float32_scalar_of_any_kind_of_step(schedule):
    at = keras.Variable(6, dtype="int64", trainable=False)
    steps = [6, tf.constant(6, tf.int64), tf.constant(6), at, tf.Variable(6, dtype=tf.int64)]
    found = [schedule(step) for step in steps]
    assert all(value.dtype == tf.float32 and value.shape == () for value in found)
    assert len({float(value) for value in found}) == 1


@every_schedule
def test_xla_gives_the_same(schedule):
    compiled = tf.function(schedule, jit_compile=True)
    for step in range(0, 45, 4):
        at = tf.constant(step, tf.int64)
        np.testing.assert_allclose(compiled(at), schedule(at), rtol=1e-6, atol=1e-7)


@every_schedule
def test_a_schedule_is_serialized_as_kerass_are(schedule):
    config = keras.optimizers.schedules.serialize(schedule)
    again = keras.optimizers.schedules.deserialize(config)
    assert type(again) is type(schedule)
    assert again.get_config() == schedule.get_config()
    assert values(again, range(12)) == values(schedule, range(12))


def test_a_piecewise_constant_saved_under_its_former_name_is_made_again():
    # as it stands in the files of runs and models saved before it had its name
    saved = {
        "module": "losses.schedules",
        "class_name": "Step",
        "config": {"boundaries": [5, 9], "values": [1.0, 0.5, 0.1]},
        "registered_name": "termwise>Step",
    }
    for make in (keras.optimizers.schedules.deserialize, keras.saving.deserialize_keras_object):
        schedule = make(saved)
        assert type(schedule) is schedules.PiecewiseConstant
        assert values(schedule, [4, 5, 9]) == pytest.approx([1.0, 0.5, 0.1])
    again = keras.optimizers.schedules.serialize(schedule)
    assert again["registered_name"] == "termwise>Step" and again["config"] == saved["config"]
    assert keras.saving.get_registered_object("termwise>Step") is schedules.PiecewiseConstant
    assert schedules.Step is schedules.PiecewiseConstant


def test_a_model_saved_with_a_piecewise_constant_is_loaded(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedules.Step([5], [1.0, 0.1])), "mse")
    model.fit(np.ones((4, 1)), np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    rate = keras.saving.load_model(tmp_path / "model.keras").optimizer.get_config()["learning_rate"]
    assert keras.saving.deserialize_keras_object(rate).boundaries == [5]


def test_a_schedule_says_what_it_does():
    assert repr(schedules.Linear(0.0, 1.0, steps=100)) == "Linear(0 -> 1, steps 0..100)"
    assert repr(schedules.Cyclical(period=50)) == "Cyclical(0 -> 1, period 50)"
    assert repr(schedules.Step([5], [1.0, 0.1])) == "Step([1.0, 0.1] at [5])"


def test_a_schedule_is_a_learning_rate():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    rate = schedules.Linear(0.1, 0.0, steps=10)
    model.compile(keras.optimizers.SGD(rate), "mse")
    model.fit(np.ones((4, 1)), np.ones((4, 1)), batch_size=1, epochs=1, verbose=0)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.06)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.Linear(0.0, 1.0, steps=0), r"Linear\(steps=0\): give a whole number"),
        (lambda: schedules.Linear(0.0, 1.0, steps=2.5), r"steps=2.5"),
        (lambda: schedules.Cosine(float("nan"), 1.0, steps=2), r"Cosine\(initial=nan\): .*finite"),
        (lambda: schedules.Cosine("a", 1.0, steps=2), r"initial='a'"),
        (lambda: schedules.Linear(0.0, 1.0, steps=5, start=-1), r"start=-1.*0 or more"),
        (lambda: schedules.Cyclical(period=10, ramp=0.0), r"Cyclical\(ramp=0.0\)"),
        (lambda: schedules.Cyclical(period=10, cycles=0), r"cycles=0.*or None"),
        (lambda: schedules.PiecewiseConstant([5, 5], [1, 2, 3]), r"boundaries=\[5, 5\].*rise"),
        (lambda: schedules.PiecewiseConstant([5], [1.0]), r"1 boundaries and 1 values. Give 2"),
    ],
)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
