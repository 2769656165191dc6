"""Weighted squared errors: per example and per batch, weights given or of the label."""

import numpy as np
import pytest
import tensorflow as tf

from losses import Ratio, WeightedMSE, WeightedRMSE

WEIGHTS = np.array([1.0, 2.0, 0.5])
RNG = np.random.default_rng(0)
Y_TRUE, Y_PRED, S = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3)), np.array([1.0, 0, 2, 0.5])
SQUARES = ((Y_TRUE - Y_PRED) ** 2 * WEIGHTS).sum(-1)


def test_by_hand():
    # w = (3, 1), e = (1, 3): sum w e^2 = 12, sum w = 4
    y_true, y_pred = [[0.0, 0.0]], [[1.0, 3.0]]
    assert float(WeightedMSE([3.0, 1.0])(y_true, y_pred)) == 3.0
    np.testing.assert_allclose(WeightedRMSE([3.0, 1.0])(y_true, y_pred), np.sqrt(12) / 4, rtol=1e-6)
    batch = WeightedRMSE([3.0, 1.0], "batch")
    np.testing.assert_allclose(batch(y_true, y_pred), np.sqrt(3.0), rtol=1e-6)


def test_per_example_follows_the_formula():
    total = WEIGHTS.sum()
    np.testing.assert_allclose(
        WeightedMSE(WEIGHTS).call(Y_TRUE, Y_PRED), SQUARES / total, rtol=1e-5
    )
    np.testing.assert_allclose(
        WeightedRMSE(WEIGHTS).call(Y_TRUE, Y_PRED), np.sqrt(SQUARES) / total, rtol=1e-5
    )


def test_per_batch_divides_by_the_sample_weights_and_takes_the_root_last():
    mean = (S * SQUARES).sum() / (WEIGHTS.sum() * S.sum())
    for kind, expected in ((WeightedMSE, mean), (WeightedRMSE, np.sqrt(mean))):
        loss = kind(WEIGHTS, reduction_point="batch")
        np.testing.assert_allclose(loss(Y_TRUE, Y_PRED, sample_weight=S), expected, rtol=1e-5)
        ratio = loss.ratio(Y_TRUE, Y_PRED, sample_weight=S)
        np.testing.assert_allclose(ratio.value(), expected, rtol=1e-5)


def test_two_replicas_take_one_root():
    loss = WeightedRMSE(WEIGHTS, reduction_point="batch")
    parts = [
        loss.ratio(Y_TRUE[part], Y_PRED[part], sample_weight=S[part])
        for part in (slice(0, 1), slice(1, 4))
    ]
    together = Ratio(
        sum(part.numerator for part in parts),
        sum(part.denominator for part in parts),
        parts[0].after,
    )
    whole = loss(Y_TRUE, Y_PRED, sample_weight=S)
    np.testing.assert_allclose(together.value(), whole, rtol=1e-6)
    assert abs(float(parts[0].value() + parts[1].value()) / 2 - float(whole)) > 1e-3


@pytest.mark.parametrize("point", ["sample", "batch"])
@pytest.mark.parametrize("kind", [WeightedMSE, WeightedRMSE])
def test_weights_of_the_label_are_those_given(kind, point):
    label = {"target": Y_TRUE, "weights": np.tile(WEIGHTS, (4, 1))}
    given, of_label = kind(WEIGHTS, point), kind(reduction_point=point)
    np.testing.assert_allclose(
        of_label(label, Y_PRED, sample_weight=S),
        given(Y_TRUE, Y_PRED, sample_weight=S),
        rtol=1e-6,
    )


def test_weights_of_the_label_may_differ_between_examples():
    weights = RNG.uniform(0, 2, (4, 3))
    weights[1] = 0
    squares, total = ((Y_TRUE - Y_PRED) ** 2 * weights).sum(-1), weights.sum(-1)
    label = {"target": Y_TRUE, "weights": weights}
    expected = np.where(total > 0, np.sqrt(squares) / np.where(total > 0, total, 1), 0)
    np.testing.assert_allclose(WeightedRMSE().call(label, Y_PRED), expected, rtol=1e-5)
    batch = WeightedRMSE(reduction_point="batch")(label, Y_PRED, sample_weight=S)
    expected = np.sqrt((S * squares).sum() / (S * total).sum())
    np.testing.assert_allclose(batch, expected, rtol=1e-5)


@pytest.mark.parametrize("point", ["sample", "batch"])
@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_scale_laws(point, factor):
    # errors times f: RMSE times f. Weights times f: MSE unchanged, per-example RMSE / sqrt(f)
    mse, rmse = WeightedMSE(WEIGHTS, point), WeightedRMSE(WEIGHTS, point)
    np.testing.assert_allclose(
        rmse(factor * Y_TRUE, factor * Y_PRED), factor * rmse(Y_TRUE, Y_PRED), rtol=1e-5
    )
    other = WeightedMSE(factor * WEIGHTS, point)
    np.testing.assert_allclose(other(Y_TRUE, Y_PRED), mse(Y_TRUE, Y_PRED), rtol=1e-5)
    other = WeightedRMSE(factor * WEIGHTS, point)
    power = 0.5 if point == "sample" else 0.0
    np.testing.assert_allclose(
        other(Y_TRUE, Y_PRED), rmse(Y_TRUE, Y_PRED) / factor**power, rtol=1e-5
    )


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("point", ["sample", "batch"])
def test_the_gradient_at_zero_residual_is_zero(point, jit_compile):
    loss = WeightedRMSE(WEIGHTS, point)
    y_true = tf.constant(Y_TRUE, tf.float32)

    def gradient(y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(y_true, y_pred)
        return value, tape.gradient(value, y_pred)

    value, slope = tf.function(gradient, jit_compile=jit_compile)(y_true)
    assert float(value) == 0
    assert np.all(slope.numpy() == 0)


def test_no_example_counts_zero():
    loss = WeightedRMSE(WEIGHTS, "batch")
    assert float(loss(Y_TRUE, Y_PRED, sample_weight=np.zeros(4))) == 0
    assert float(loss.ratio(Y_TRUE[:0], Y_PRED[:0]).value()) == 0


def test_one_value_per_time_step():
    loss = WeightedRMSE([1.0])
    assert loss.call(np.ones((2, 5, 1)), np.zeros((2, 5, 1))).shape == (2, 5)
    assert loss.call(np.ones(4), np.zeros((4, 1))).shape == (4,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightedMSE([1.0, -1.0]), r"WeightedMSE\(weights=\[1.0, -1.0\]\).*>= 0"),
        (lambda: WeightedRMSE([0.0, 0.0]), "must be positive"),
        (lambda: WeightedMSE([1.0], "epoch"), "'epoch'.*'sample' and 'batch'"),
        (lambda: WeightedRMSE([1.0], "batch", reduction="sum"), "reduction='sum'.*Leave"),
        (lambda: WeightedMSE([1.0]).call(Y_TRUE, Y_PRED), r"1 weights.*\(4, 3\)"),
        (lambda: WeightedMSE().call(Y_TRUE, Y_PRED), "weights=None and its label is one tensor"),
        (lambda: WeightedMSE([1.0]).call({"target": 0, "weights": 0}, Y_PRED), "weights=None and"),
        (lambda: WeightedMSE().call({"target": 0, "w": 0}, Y_PRED), r"\['target', 'w'\]"),
    ],
)
def test_errors_say_what_is_accepted(make, message):
    with pytest.raises(ValueError, match=message):
        make()
