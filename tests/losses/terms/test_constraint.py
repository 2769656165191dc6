"""Constraints: what is bounded, with which gradient, and what cannot be one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.terms.multiplier import Ascent, Multiplier

OUTPUTS = [[0.2], [0.9], [0.6], [0.4]]
POSITIVE = [[1.0], [1.0], [1.0], [0.0]]


def make_step(outputs=OUTPUTS, labels=POSITIVE):
    step = losses.Step(x=tf.zeros([4, 1]), y=tf.constant(labels), model=None, step=0, training=True)
    step.y_pred = tf.convert_to_tensor(outputs)
    return step


def recall(step):
    """Of three positives two are above a half."""
    hits = tf.cast(step.y_pred > 0.5, tf.float32) * step.y
    return losses.Ratio(tf.reduce_sum(hits), tf.reduce_sum(step.y))


def soft_recall(step):
    return losses.Ratio(tf.reduce_sum(step.y_pred * step.y), tf.reduce_sum(step.y))


def mean(step):
    return step.y_pred[:, 0]


@pytest.mark.parametrize(
    "bound, raw",
    [({"at_most": 0.5}, 0.525 - 0.5), ({"at_least": 0.6}, 0.6 - 0.525), ({"equals": 1}, -0.475)],
)
def test_the_raw_value_is_by_how_much_the_bound_is_broken(bound, raw):
    constraint = losses.Constraint(mean, **bound)
    assert float(constraint.call(make_step()).value()) == pytest.approx(raw, abs=1e-7)


def test_a_function_after_the_division_comes_before_the_bound():
    def root(step):
        return losses.Ratio(tf.reduce_sum(step.y_pred**2), tf.constant(4.0), after=tf.sqrt)

    constraint = losses.Constraint(root, at_least=1.0)
    expected = 1.0 - np.sqrt((0.04 + 0.81 + 0.36 + 0.16) / 4)
    assert float(constraint.call(make_step()).value()) == pytest.approx(expected, abs=1e-6)


def test_a_sum_is_bounded_as_a_sum():
    def whole(step):
        return losses.Ratio(tf.reduce_sum(step.y_pred))

    constraint = losses.Constraint(whole, at_most=2)
    assert float(constraint.call(make_step()).value()) == pytest.approx(0.1, abs=1e-6)


def test_a_proxy_gives_the_gradient_and_the_quantity_the_value():
    constraint = losses.Constraint(recall, at_least=0.9, proxy=soft_recall)
    outputs = tf.Variable(OUTPUTS)
    with tf.GradientTape() as tape:
        value = constraint.call(make_step(outputs)).value()
    assert float(value) == pytest.approx(0.9 - 2 / 3, abs=1e-6)
    # d (0.9 - soft recall): -1/3 for each positive
    slope = tape.gradient(value, outputs)
    np.testing.assert_allclose(slope[:, 0], [-1 / 3, -1 / 3, -1 / 3, 0], atol=1e-6)


def test_a_proxy_may_be_a_mean_over_other_examples_with_a_function_behind_it():
    def spread(step):
        return losses.Ratio(tf.reduce_sum(step.y_pred**2), tf.constant(4.0), after=tf.sqrt)

    constraint = losses.Constraint(recall, at_least=0.9, proxy=spread)
    outputs = tf.Variable(OUTPUTS)
    with tf.GradientTape() as tape:
        value = constraint.call(make_step(outputs)).value()
    root = np.sqrt(np.mean(np.square(OUTPUTS)))
    expected = -np.array(OUTPUTS) / 4 / root
    assert float(value) == pytest.approx(0.9 - 2 / 3, abs=1e-6)
    np.testing.assert_allclose(tape.gradient(value, outputs), expected, atol=1e-6)


def test_a_term_is_bounded_with_its_variables():
    class Scaled(losses.Term):
        def __init__(self):
            super().__init__(name="scaled")
            self.scale = self.add_weight("scale", initializer=2.0)

        def call(self, step):
            return self.scale * step.y_pred[:, 0]

    term = Scaled()
    constraint = losses.Constraint(term, at_most=1.0)
    assert constraint.name == "scaled" and constraint.variables == [term.scale]
    assert float(constraint.call(make_step()).value()) == pytest.approx(2 * 0.525 - 1, abs=1e-6)


def moved(violations, signed=False, **ascent):
    """The multiplier and the weight after each violation of a batch, and both as numpy has them."""
    settings = dict(rate=0.5, damping=2.0, every=1, average=None, initial=0.0)
    settings.update(ascent)
    multiplier = Multiplier("m", Ascent("damped", "at most 0", signed, **settings))
    multiplier.allocate(1, 1)
    pairs = []
    for step, violation in enumerate(violations):
        sums = tf.constant([violation, 1.0])
        divided = lambda sums: sums[0] / sums[1]  # noqa: E731
        multiplier.move(sums, tf.constant(1.0), divided, tf.constant(step, tf.int64), 1)
        pairs.append((float(multiplier.state.multiplier), float(multiplier(step))))
    return np.array(pairs)


def test_a_multiplier_ascends_and_is_never_below_0():
    # multiplier 0.5 * 1; + 0.5 * -2 < 0; then 0.5 * 0.4. weight: + 2 * violation, not below 0
    np.testing.assert_allclose(
        moved([1.0, -2.0, 0.4]), [(0.5, 2.5), (0.0, 0.0), (0.2, 1.0)], atol=1e-6
    )


def test_the_multiplier_of_an_equation_has_either_sign():
    np.testing.assert_allclose(
        moved([1.0, -2.0], signed=True), [(0.5, 2.5), (-0.5, -4.5)], atol=1e-6
    )


def test_a_moving_average_is_of_the_sums():
    # (1, 1); (0.5 - 2, 0.5 + 1): -1; its step 0.5 * -1
    np.testing.assert_allclose(
        moved([1.0, -2.0], signed=True, average=0.5), [(0.5, 2.5), (0.0, -2.0)], atol=1e-6
    )


def test_a_multiplier_of_every_second_update_damps_by_each():
    np.testing.assert_allclose(
        moved([1.0, 2.0, 1.0], every=2), [(0.0, 2.0), (1.0, 5.0), (1.0, 3.0)], atol=1e-6
    )


def test_the_rate_may_be_a_schedule():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.1])
    np.testing.assert_allclose(moved([1.0, 1.0], rate=schedule)[:, 0], [1.0, 1.1], atol=1e-6)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (dict(), "was given no bound. Give one of at_most="),
        (dict(at_most=1, at_least=0), "was given at_most and at_least"),
        (dict(at_most=float("nan")), r"Constraint\(at_most=nan\): give a finite number"),
        (dict(equals=float("inf")), r"Constraint\(equals=inf\): give a finite number"),
        (dict(at_most=1, kind="penalty"), "accepted are 'lagrangian', 'damped', 'augmented'"),
        (dict(at_most=1, penalty=2), r"kind='damped' has no penalty. It takes rate= and damping="),
        (dict(at_most=1, kind="lagrangian", damping=2), "kind='lagrangian' has no damping"),
        (dict(at_most=1, kind="augmented", rate=2), "kind='augmented' has no rate"),
        (dict(at_most=1, rate=0), r"Constraint\(rate=0\): give a finite number above 0"),
        (
            dict(at_most=1, damping=-1),
            r"Constraint\(damping=-1\): give a finite number of at least",
        ),
        (dict(at_most=1, kind="augmented", every=0), "give a whole number of at least 1"),
        (dict(at_most=1, average=1.0), "give a decay above 0 and below 1"),
        (
            dict(at_most=1, initial=-1),
            r"Constraint\(initial=-1\): give a finite number of at least",
        ),
    ],
)
def test_what_cannot_be_a_constraint_is_told(arguments, said):
    with pytest.raises(losses.TermwiseError, match=said):
        losses.Constraint(mean, **arguments)


def test_several_quantities_and_a_weighted_term_are_told():
    two = losses.Constraint(lambda s: {"a": mean(s), "b": mean(s)}, "two", at_most=1)
    with pytest.raises(losses.TermwiseError, match="returned 2: two/a, two/b"):
        two.call(make_step())
    weighted = losses.term(mean, weight=2.0)
    with pytest.raises(losses.TermwiseError, match="has the weight 2"):
        losses.Constraint(weighted, at_most=1)
    with pytest.raises(losses.TermwiseError, match="without a name"):
        losses.Constraint(lambda s: mean(s), at_most=1)
    mixed = losses.Constraint(
        recall, at_least=1, proxy=lambda s: losses.Ratio(tf.reduce_sum(s.y_pred))
    )
    with pytest.raises(losses.TermwiseError, match="one is a sum over the batch, the other a mean"):
        mixed.call(make_step())


def test_the_multiplier_is_that_of_a_run():
    constraint = losses.Constraint(mean, at_most=1)
    with pytest.raises(losses.TermwiseError, match=r"Read trainer.multipliers\['mean'\]"):
        constraint.multiplier  # noqa: B018
    runs = constraint.for_run(), constraint.for_run()
    runs[0].multiplier.state.multiplier.assign(3.0)
    assert float(runs[1].multiplier.state.multiplier) == 0.0
    assert repr(runs[0].weight) == "damped multiplier, at most 1"


def test_the_arguments_make_it_again():
    config = losses.Constraint(mean, at_most=1, rate=0.1, average=0.9, trains="a").get_config()
    again = losses.Constraint.from_config(config)
    assert again.get_config() == config and again.ascent.rate == 0.1
