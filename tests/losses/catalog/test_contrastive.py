"""NT-Xent, SupCon, Contrastive, NPairs: by formula in float64, beside peers, at hard points."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import Contrastive, NPairs, NTXent, SupCon

pytestmark = pytest.mark.one_in(2)

LABELS = np.array([0, 0, 1, 1, 2, 2])


def points(n=6, features=4):
    count = np.arange(n * features).reshape(n, features)
    return np.sin((count + 1) * 1.7) + 0.1 * np.cos(count)


def views():
    return points(4, 3), points(4, 3)[::-1] + 0.2


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def nt_xent(a, b, temperature):
    """SimCLR's loss of each pair, anchor by anchor."""
    z, n = np.concatenate([unit(a), unit(b)]), len(a)
    s = np.exp(z @ z.T / temperature)

    def of(i, j):
        return -np.log(s[i, j] / sum(s[i, k] for k in range(2 * n) if k != i))

    return [(of(i, i + n) + of(i + n, i)) / 2 for i in range(n)]


def sup_con(labels, x, temperature):
    """Khosla et al., eq. 2, anchor by anchor."""
    z = unit(x)
    s = np.exp(z @ z.T / temperature)
    values = []
    for i in range(len(x)):
        others = [k for k in range(len(x)) if k != i]
        positives = [p for p in others if labels[p] == labels[i]]
        logs = [np.log(s[i, p] / sum(s[i, k] for k in others)) for p in positives]
        values.append(-np.mean(logs) if positives else 0.0)
    return values


def n_pairs(labels, s, l2=0.0):
    values = []
    for i, row in enumerate(s):
        positives = [j for j in range(len(s)) if labels[j] == labels[i]]
        log_p = row - np.log(np.sum(np.exp(row)))
        values.append(-np.mean(log_p[positives]) + l2 * np.mean(row**2))
    return values


def similarities():
    return points() @ points().T


def test_nt_xent_by_hand():
    # each view has itself as positive: exp(1) / (exp(1) + 1 + 1)
    z = np.eye(2)
    np.testing.assert_allclose(
        NTXent(temperature=1.0, dtype="float64").call(z, z), [np.log(np.e + 2) - 1] * 2
    )


def test_sup_con_by_hand():
    # the two alike: log(e + 1) - 1; the third has no positive
    x = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0]])
    values = SupCon(temperature=1.0, dtype="float64").call(np.array([0, 0, 1]), x)
    np.testing.assert_allclose(values, [np.log(np.e + 1) - 1] * 2 + [0.0])


def test_contrastive_by_hand():
    # alike at 0.5: 0.25; unlike at 0.25: 0.75^2; unlike beyond the margin: 0
    y_true, distance = tf.constant([1.0, 0.0, 0.0]), tf.constant([0.5, 0.25, 1.5])
    np.testing.assert_allclose(Contrastive().call(y_true, distance), [0.25, 0.5625, 0.0])
    np.testing.assert_allclose(
        Contrastive(margin=2.0).call(y_true[:, None], distance), [0.25, 1.75**2, 0.25]
    )


def test_n_pairs_by_hand():
    s = np.array([[1.0, 0.0], [0.0, 1.0]])
    values = NPairs(dtype="float64").call(np.array([0, 1]), s)
    np.testing.assert_allclose(values, [np.log(np.e + 1) - 1] * 2)
    # the penalty: 0.5 * mean(1, 0)
    values = NPairs(l2=0.5, dtype="float64").call(np.array([0, 1]), s)
    np.testing.assert_allclose(values, [np.log(np.e + 1) - 1 + 0.25] * 2)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 8), temperature=st.floats(0.05, 2.0))
def test_each_value_is_that_of_its_formula(seed, n, temperature):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, 4))
    labels = rng.integers(0, 3, n)
    cases = [
        (NTXent, {"temperature": temperature}, (a, b), nt_xent(a, b, temperature)),
        (SupCon, {"temperature": temperature}, (labels, b), sup_con(labels, b, temperature)),
        (NPairs, {"l2": 0.3}, (labels, a @ b.T), n_pairs(labels, a @ b.T, 0.3)),
    ]
    for loss, arguments, pair, expected in cases:
        found = loss(dtype="float64", **arguments).call(*pair)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
        low = [tf.cast(tensor, tf.float32) for tensor in pair]
        np.testing.assert_allclose(loss(**arguments).call(*low), expected, rtol=2e-5, atol=1e-5)


# pytorch-metric-learning 2.9.0 on torch 2.13.0, float64, temperature 0.5: NTXentLoss of
# torch.cat(views()) labelled arange(4) twice, SupConLoss of points() and LABELS; gradients of the
# first embedding. torch 2.13.0: F.cross_entropy(similarities(), rows of equal labels / their sum)
NT_XENT = (3.419528686804582, [-0.019021142153492515, 0.18959872837826575, -0.06095630192403664])
SUP_CON = (
    0.9378102228001596,
    [0.002670531248100877, -0.012114564206196478, -0.003580049003765462, -0.022322630055382965],
)
N_PAIRS = [
    0.9973646408590606,
    1.3221590355900537,
    1.4248337818141983,
    1.4223144453576568,
    1.2262428422962985,
    0.9773802004016183,
]


def test_nt_xent_is_pytorch_metric_learnings():
    loss = NTXent(temperature=0.5, dtype="float64")
    a, b = map(tf.constant, views())
    with tf.GradientTape() as tape:
        tape.watch(a)
        value = loss(a, b)
    assert float(value) == pytest.approx(NT_XENT[0], abs=1e-9)
    np.testing.assert_allclose(tape.gradient(value, a)[0], NT_XENT[1], atol=1e-9)


def test_sup_con_is_pytorch_metric_learnings():
    loss = SupCon(temperature=0.5, dtype="float64")
    x = tf.constant(points())
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(LABELS, x)
    assert float(value) == pytest.approx(SUP_CON[0], abs=1e-9)
    np.testing.assert_allclose(tape.gradient(value, x)[0], SUP_CON[1], atol=1e-9)


def test_n_pairs_is_torchs_cross_entropy():
    found = NPairs(dtype="float64").call(LABELS, similarities())
    np.testing.assert_allclose(found, N_PAIRS, atol=1e-9)


CASES = {
    "NTXent": (NTXent, {"temperature": 0.5}, np.stack(views(), 1)[[0, 1, 2, 3, 0, 2]] ** 3),
    "SupCon": (SupCon, {"temperature": 0.5}, points()),
    "NPairs": (NPairs, {"l2": 0.1}, similarities()),
    "Contrastive": (Contrastive, {"margin": 0.8}, np.abs(points(6, 1))[:, 0]),
}
every_loss = pytest.mark.parametrize("name", CASES)
among_all = pytest.mark.parametrize("name", ["NTXent", "SupCon", "NPairs"])


def case(which, dtype="float64", **arguments):
    kind, own, y_pred = CASES[which]
    labels = (LABELS == 1).astype("float64") if which == "Contrastive" else LABELS
    return kind(dtype=dtype, **own, **arguments), labels, y_pred.copy()


def value_and_gradient(loss, labels, y_pred, weight=None):
    y_pred = tf.constant(y_pred)
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(labels, y_pred, weight)
    return value.numpy(), tape.gradient(value, y_pred).numpy()


@every_loss
def test_the_gradient_is_that_of_finite_differences(name):
    loss, labels, y_pred = case(name)
    weight = np.array([1.0, 2.0, 0.0, 1.0, 0.5, 1.0])
    (found,), (expected,) = tf.test.compute_gradient(
        lambda p: loss(labels, p, weight), [tf.constant(y_pred)], delta=1e-6
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_both_views_get_a_gradient():
    a, b = views()
    loss = NTXent(dtype="float64")
    found, expected = tf.test.compute_gradient(
        lambda a, b: loss.call(a, b), [tf.constant(a), tf.constant(b)], delta=1e-6
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_two_views_may_come_as_one_output_without_a_label():
    a, b = views()
    loss = NTXent()
    assert float(loss(None, np.stack([a, b], 1))) == pytest.approx(float(loss(a, b)), rel=1e-6)


@among_all
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_an_example_of_weight_0_is_absent_even_if_it_is_nan(name, reduction):
    loss, labels, y_pred = case(name, reduction=reduction)
    keep = np.array([True, True, False, True, True, False])
    rest = y_pred[keep][:, keep] if name == "NPairs" else y_pred[keep]
    expected, _ = value_and_gradient(loss, labels[keep], rest)
    y_pred[~keep] = np.nan
    if name == "NPairs":
        y_pred[:, ~keep] = np.nan
    found, gradient = value_and_gradient(loss, labels, y_pred, keep.astype("float64"))
    if reduction == "sum_over_batch_size":
        found *= 6 / 4  # Keras divides by the number of elements
    assert found == pytest.approx(expected, rel=1e-9)
    assert np.all(np.isfinite(gradient)) and np.all(gradient[~keep] == 0)


@among_all
def test_a_masked_example_is_absent_and_does_not_count(name):
    loss, labels, y_pred = case(name)
    keep = np.array([True, True, False, True, True, False])
    rest = y_pred[keep][:, keep] if name == "NPairs" else y_pred[keep]
    masked = tf.constant(y_pred)
    masked._keras_mask = tf.constant(keep)
    assert float(loss(labels, masked)) == pytest.approx(float(loss(labels[keep], rest)), rel=1e-9)


@every_loss
def test_other_weights_multiply_the_examples_values(name):
    loss, labels, y_pred = case(name)
    weight = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 0.1])
    values = loss.call(labels, tf.constant(y_pred)).numpy()
    assert float(loss(labels, y_pred, weight)) == pytest.approx(np.mean(values * weight))
    weighted, *_ = case(name, reduction="mean_with_sample_weight")
    expected = np.sum(values * weight) / np.sum(weight)
    assert float(weighted(labels, y_pred, weight)) == pytest.approx(expected)
    unreduced, *_ = case(name, reduction=None)
    np.testing.assert_allclose(unreduced(labels, y_pred, weight), values * weight)


@every_loss
def test_the_order_of_the_examples_does_not_count(name):
    loss, labels, y_pred = case(name)
    order = np.random.default_rng(0).permutation(6)
    moved = y_pred[order][:, order] if name == "NPairs" else y_pred[order]
    expected = float(loss(labels, y_pred))
    assert float(loss(labels[order], moved)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["NTXent", "SupCon"])
def test_the_length_of_an_embedding_does_not_count(name):
    loss, labels, y_pred = case(name)
    scale = np.linspace(0.1, 100, 6).reshape(-1, *[1] * (y_pred.ndim - 1))
    expected = float(loss(labels, y_pred))
    assert float(loss(labels, y_pred * scale)) == pytest.approx(expected, rel=1e-12)


HARD_POINTS = {
    "identical": (LABELS, np.ones((6, 4))),
    "zero": (LABELS, np.zeros((6, 4))),
    "tiny": (LABELS, np.full((6, 4), 1e-30)),
    "huge": (LABELS, 1e4 * points()),
    "no negative": (np.zeros(6), points()),
    "no positive": (np.arange(6), points()),
    "one example": (np.zeros(1), points(1)),
    "no example": (np.zeros(0), np.zeros((0, 4))),
}


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("at", HARD_POINTS)
def test_hard_points_are_finite(name, dtype, at):
    labels, y_pred = HARD_POINTS[at]
    loss, *_ = case(name, dtype)
    if name == "NTXent":
        y_pred = np.stack([y_pred, y_pred], 1)
    elif name == "NPairs":
        y_pred = np.clip(y_pred @ y_pred.T, -30, 30)
    elif name == "Contrastive":
        labels, y_pred = labels % 2, np.minimum(np.abs(y_pred), 30.0).mean(1)
    value, gradient = value_and_gradient(loss, labels, y_pred.astype("float32"))
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))


def test_all_examples_of_weight_0_give_0():
    for name in ("NTXent", "SupCon", "NPairs"):
        loss, labels, y_pred = case(name, reduction="mean_with_sample_weight")
        value, gradient = value_and_gradient(loss, labels, y_pred, np.zeros(6))
        assert value == 0 and np.all(gradient == 0)


@every_loss
def test_xla_gives_the_same(name):
    loss, labels, y_pred = case(name, "float32")
    y_pred, labels = tf.cast(y_pred, tf.float32), tf.cast(labels, tf.float32)
    weight = tf.constant([1.0, 2.0, 0.0, 1.0, 1.0, 1.0])

    def step(y_pred):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            value = loss(labels, y_pred, weight)
        return value, tape.gradient(value, y_pred)

    compiled = tf.function(step, jit_compile=True)
    for found, expected in zip(compiled(y_pred), step(y_pred), strict=True):
        np.testing.assert_allclose(found, expected, atol=3e-6)


@every_loss
def test_it_is_restored_from_its_configuration(name):
    loss, *_ = case(name, "float64", reduction="sum", name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NTXent(temperature=0), r"NTXent\(temperature=0\): give a number above 0"),
        (lambda: SupCon(temperature=float("inf")), r"SupCon\(temperature=inf\)"),
        (lambda: Contrastive(margin=-0.5), r"Contrastive\(margin=-0.5\)"),
        (lambda: NPairs(l2=-1), r"NPairs\(l2=-1\)"),
        (lambda: NTXent()(np.ones((2, 3)), np.ones((3, 3))), r"one shape .*\(2, 3\) and \(3, 3\)"),
        (lambda: NTXent()(None, np.ones((2, 3, 4))), r"\[pairs, 2, features\].*\(2, 3, 4\)"),
        (lambda: SupCon()(np.eye(3), np.ones((3, 4))), r"shape \(3, 3\).*tf.argmax"),
        (lambda: NPairs()([0, 1], np.ones((2, 3))), r"\[examples, examples\].*\(2, 3\)"),
        (lambda: Contrastive()(np.ones(2), np.ones(3)), r"Give both one shape"),
    ],
)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Similarities(keras.layers.Layer):
    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(x))


class Distances(keras.layers.Layer):
    def call(self, x):
        return keras.ops.sqrt(keras.ops.sum(keras.ops.square(x), -1) + 1e-6)


class Views(keras.layers.Layer):
    def call(self, x):
        return keras.ops.stack([x, keras.ops.roll(x, 1, axis=-1)], axis=1)


@pytest.mark.parametrize(
    ("loss", "head"),
    [
        (NTXent(), Views()),
        (SupCon(), None),
        (NPairs(), Similarities()),
        (Contrastive(), Distances()),
    ],
    ids=["NTXent", "SupCon", "NPairs", "Contrastive"],
)
def test_it_is_minimised_by_fit(loss, head):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 6)
    x = rng.normal(size=(12, 5)).astype("float32") + 0.5 * np.eye(5, dtype="float32")[labels]
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), *([head] if head else [])])
    model.compile(keras.optimizers.Adam(0.02), loss)
    history = model.fit(x, labels, epochs=40, batch_size=12, verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]
