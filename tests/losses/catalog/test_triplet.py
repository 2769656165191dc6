"""Triplet losses: against TensorFlow Addons' formulas in float64, against peers, at hard points."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import Triplet, TripletMargin

pytestmark = pytest.mark.one_in(3)

DISTANCES = ("L2", "squared-L2", "angular")
LABELS = np.array([0, 0, 1, 1, 2, 2])
every_distance = pytest.mark.parametrize("distance", DISTANCES)
every_mining = pytest.mark.parametrize("mining", ["semihard", "hard"])
every_softness = pytest.mark.parametrize("soft", [False, True], ids=["margin", "soft"])


def points(n=6, features=4):
    count = np.arange(n * features).reshape(n, features)
    return np.sin((count + 1) * 1.7) + 0.1 * np.cos(count)


def distances_of(x, distance):
    """Of every two rows, one pair at a time."""
    if distance == "angular":
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return np.array([[max(1 - a @ b, 0) for b in unit] for a in unit])
    square = np.array([[np.sum((a - b) ** 2) for b in x] for a in x])
    return square if distance == "squared-L2" else np.sqrt(square)


def addons(labels, x, margin=1.0, mining="semihard", soft=False, distance="L2"):
    """tensorflow-addons 0.23: triplet_semihard_loss and triplet_hard_loss, loop by loop.

    Its masked minimum without an element is the row's maximum, its masked maximum the row's
    minimum (0, on the diagonal).
    """
    d = distances_of(x, distance)
    np.fill_diagonal(d, 0)

    def hinge(positive, negative):
        if soft:
            return np.log1p(np.exp(positive - negative))
        return max(positive - negative + margin, 0)

    values = []
    for a in range(len(x)):
        positives = [p for p in range(len(x)) if labels[p] == labels[a] and p != a]
        negatives = [d[a, n] for n in range(len(x)) if labels[n] != labels[a]]
        if mining == "hard":
            farthest = max((d[a, p] for p in positives), default=d[a].min())
            values.append(hinge(farthest, min(negatives, default=d[a].max())))
            continue
        for p in positives:
            beyond = [n for n in negatives if n > d[a, p]]
            values.append(hinge(d[a, p], min(beyond) if beyond else max(negatives, default=0)))
    return np.mean(values) if values else 0.0


def value_and_gradient(loss, labels, x, weight=None):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(labels, x, weight)
    return value.numpy(), tape.gradient(value, x).numpy()


def test_semihard_by_hand():
    # on a line: 0 and 2 are alike, 3 and 1.5 are others
    # 0 -> 2: first negative beyond 2 is 3: 2 - 3 + 1.5; 2 -> 0: none beyond 2, the last is 1
    x = [[0.0], [2.0], [3.0], [1.5]]
    loss = Triplet(margin=1.5)([0, 0, 1, 2], x)
    assert float(loss) == pytest.approx(((2 - 3 + 1.5) + (2 - 1 + 1.5)) / 2)


def test_hard_by_hand():
    # 0: 2 - 3 + 1; 2: 2 - 1 + 1; 3, alone in its class: 0 - 1 + 1
    loss = Triplet(margin=1.0, mining="hard")([0, 0, 1], [[0.0], [2.0], [3.0]])
    assert float(loss) == pytest.approx((0 + 2 + 0) / 3)


@every_mining
@every_softness
@every_distance
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(1, 9), margin=st.floats(0.0, 2.0))
def test_it_is_tensorflow_addons(mining, soft, distance, seed, classes, margin):
    rng = np.random.default_rng(seed)
    labels, x = rng.integers(0, classes, 9), rng.normal(size=(9, 5))
    arguments = {"margin": margin, "mining": mining, "soft": soft, "distance": distance}
    expected = addons(labels, x, **arguments)
    assert float(Triplet(dtype="float64", **arguments)(labels, x)) == pytest.approx(
        expected, rel=1e-9, abs=1e-9
    )
    x32 = x.astype("float32")
    expected = addons(labels, x32.astype("float64"), **arguments)
    assert float(Triplet(**arguments)(labels, x32)) == pytest.approx(expected, rel=2e-6, abs=2e-6)


# pytorch-metric-learning 2.9.0 on torch 2.13.0, float64, of LABELS and points(): BatchHardMiner and
# TripletMarginLoss(margin=1.0, reducer=MeanReducer()) with LpDistance(normalize_embeddings=False,
# power=1 and 2) and CosineSimilarity(); the gradient is that of the first embedding
PEER = {
    "L2": (
        0.8727402607862023,
        [0.04953922448076227, 0.07395593806988633, -0.07826141854557198, -0.12728748921624194],
    ),
    "squared-L2": (
        0.7578806976001286,
        [0.11951401997177986, 0.1566658658690675, -0.14843642747014998, -0.1798126462707542],
    ),
    "angular": (0.8981558341508545, None),
}


@every_distance
def test_hard_mining_is_pytorch_metric_learnings(distance):
    loss = Triplet(mining="hard", distance=distance, dtype="float64")
    value, gradient = value_and_gradient(loss, LABELS, points())
    expected, expected_gradient = PEER[distance]
    assert value == pytest.approx(expected, abs=1e-9)
    if expected_gradient is not None:
        np.testing.assert_allclose(gradient[0], expected_gradient, atol=1e-9)


@every_mining
@every_distance
@every_softness
def test_the_gradient_is_that_of_finite_differences(mining, distance, soft):
    loss = Triplet(margin=2.0, mining=mining, soft=soft, distance=distance, dtype="float64")
    weight = tf.constant([1.0, 2.0, 0.0, 1.0, 0.5, 1.0], tf.float64)
    (found,), (expected,) = tf.test.compute_gradient(
        lambda x: loss(LABELS, x, weight), [tf.constant(points())], delta=1e-6
    )
    np.testing.assert_allclose(found, expected, atol=1e-7)


HARD_POINTS = {
    "identical": ([0, 0, 1, 1], np.ones((4, 3))),
    "zero": ([0, 0, 1, 1], np.zeros((4, 3))),
    "no negative": ([0, 0, 0, 0], points(4, 3)),
    "no positive": ([0, 1, 2, 3], points(4, 3)),
    "one example": ([0], points(1, 3)),
    "no example": (np.zeros(0), np.zeros((0, 3))),
    "far": ([0, 0, 1, 1], 50.0 * points(4, 3)),
}


@every_mining
@every_distance
@every_softness
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("at", HARD_POINTS)
def test_hard_points_are_finite(mining, distance, soft, dtype, at):
    labels, x = HARD_POINTS[at]
    loss = Triplet(mining=mining, soft=soft, distance=distance, dtype=dtype)
    value, gradient = value_and_gradient(loss, labels, x.astype("float32"))
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_a_batch_without_pairs_of_a_class_has_semihard_value_0():
    assert float(Triplet()([0, 1, 2], points(3))) == 0.0


def test_embeddings_close_together_keep_their_digits():
    # |a|^2 + |b|^2 - 2ab in float32 would give 0 or 3e-4 for this distance
    x = np.array([[1.0, 0.0], [1.0, 1e-4], [1.0, 0.5]], "float32")
    value = float(Triplet(mining="hard", margin=0.0)([0, 1, 0], x))
    d = distances_of(x.astype("float64"), "L2")
    expected = ((d[0, 2] - d[0, 1]) + 0 + (d[0, 2] - d[1, 2])) / 3
    assert value == pytest.approx(expected, rel=1e-6)


@every_mining
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_an_example_of_weight_0_is_absent_even_if_it_is_nan(mining, reduction):
    loss = Triplet(mining=mining, reduction=reduction, dtype="float64")
    weight = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    labels, x = np.array([0, 0, 0, 1, 1, 1, 2]), points(7)
    expected, expected_gradient = value_and_gradient(loss, labels[weight > 0], x[weight > 0])
    x[weight == 0] = np.nan
    found, gradient = value_and_gradient(loss, labels, x, weight)
    assert found == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(gradient[weight > 0], expected_gradient, atol=1e-12)
    assert np.all(gradient[weight == 0] == 0)


def test_weights_multiply_the_parts_of_their_anchors():
    labels, x = [0, 0, 1], np.array([[0.0], [2.0], [3.5]])
    weight = np.array([3.0, 1.0, 2.0])
    parts = np.array([0.0, 2 - 1.5 + 1, 0.0])  # of the anchors, unweighted
    hard = {"mining": "hard", "dtype": "float64"}
    total = float(Triplet(reduction="sum", **hard)(labels, x, weight))
    assert total == pytest.approx(np.sum(parts * weight))
    assert float(Triplet(**hard)(labels, x, weight)) == pytest.approx(total / 3)
    weighted = Triplet(reduction="mean_with_sample_weight", **hard)(labels, x, weight)
    assert float(weighted) == pytest.approx(total / 6)


def test_the_order_of_the_examples_does_not_count():
    order = np.random.default_rng(0).permutation(6)
    for mining in ("semihard", "hard"):
        loss = Triplet(mining=mining, dtype="float64")
        expected = float(loss(LABELS, points()))
        assert float(loss(LABELS[order], points()[order])) == pytest.approx(expected, rel=1e-12)


@every_mining
@every_distance
def test_xla_gives_the_same(mining, distance):
    loss = Triplet(mining=mining, distance=distance)
    x, labels = tf.cast(points(), tf.float32), tf.constant(LABELS, tf.float32)
    weight = tf.constant([1.0, 2.0, 0.0, 1.0, 1.0, 1.0])

    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x, weight)
        return value, tape.gradient(value, x)

    for found, expected in zip(tf.function(step, jit_compile=True)(x), step(x), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_triplets_that_the_data_names():
    # 2 - 2.5 + 1; then far enough; then the soft form of the first
    x = np.array([[[0.0], [2.0], [-2.5]], [[0.0], [1.0], [4.0]]])
    np.testing.assert_allclose(TripletMargin(dtype="float64").call(None, x), [0.5, 0.0])
    soft = TripletMargin(soft=True, dtype="float64").call(None, x)
    np.testing.assert_allclose(soft, np.log1p(np.exp([-0.5, -3.0])), rtol=1e-12)
    assert float(TripletMargin()(None, x)) == pytest.approx(0.25)


def test_triplets_are_torchs():
    # torch 2.13.0: F.triplet_margin_loss(x[:, 0], x[:, 1], x[:, 2], margin=2.0, eps=0.0,
    # reduction="none") of these, float64
    x = points(12, 3).reshape(4, 3, 3)
    found = TripletMargin(margin=2.0, dtype="float64").call(None, x)
    expected = [0.811716375724556, 0.7738516872142451, 0.8751624702594705, 1.063091323346232]
    np.testing.assert_allclose(found, expected, atol=1e-9)


@every_distance
@pytest.mark.parametrize("x", [np.zeros((2, 3, 4)), np.ones((2, 3, 4))], ids=["zero", "same"])
def test_named_triplets_that_coincide_are_finite(distance, x):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = TripletMargin(distance=distance)(None, x)
    assert float(value) == pytest.approx(1.0)
    assert np.all(np.isfinite(tape.gradient(value, x)))


@pytest.mark.parametrize(
    "loss",
    [
        Triplet(margin=0.3, mining="hard", soft=True, distance="angular", reduction="sum"),
        TripletMargin(margin=0.3, soft=True, distance="squared-L2", dtype="float64"),
    ],
    ids=["Triplet", "TripletMargin"],
)
def test_it_is_restored_from_its_configuration(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Triplet(mining="easy"), r"mining='easy'\): accepted .* losses.TripletMargin"),
        (lambda: Triplet(distance="L1"), r"distance='L1'\): accepted are 'L2', 'squared-L2'"),
        (lambda: Triplet(margin=-1), r"margin=-1\): give a number >= 0"),
        (lambda: TripletMargin(margin=float("nan")), r"TripletMargin\(margin=nan\)"),
        (lambda: Triplet()([[0, 1]], np.ones((2, 3))), r"shape \(1, 2\).*tf.argmax"),
        (lambda: Triplet()([0, 1], np.ones((2, 3, 4))), r"\[examples, features\].*\(2, 3, 4\)"),
        (lambda: Triplet()([0, 1], np.ones((2, 3)), np.ones(3)), r"sample weights .*\(3,\) beside"),
        (lambda: TripletMargin()(None, np.ones((2, 4, 3))), r"\[triplets, 3, features\]"),
    ],
)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_mining
def test_classes_are_told_apart_by_fit(mining):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 8)
    x = rng.normal(size=(24, 6)).astype("float32") + 0.8 * np.eye(6, dtype="float32")[labels]
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.Adam(0.02), Triplet(mining=mining))
    history = model.fit(x, labels, epochs=40, batch_size=24, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]
