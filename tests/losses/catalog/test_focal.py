"""Focal losses: against the formula in float64, Keras, PyTorch, and at the hard points."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import BinaryFocal, CategoricalFocal, SparseFocal
from losses.objective.compiled import compiled_ratios, name_losses


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_binary_by_hand():
    # p_t = 1/2 for both; alpha_t = 0.25 and 0.75
    loss = BinaryFocal(gamma=2.0, alpha=0.25)
    expected = np.mean([0.25, 0.75]) * 0.25 * np.log(2)
    np.testing.assert_allclose(loss([[1.0, 0.0]], [[0.0, 0.0]]), expected, rtol=1e-6)


def test_sparse_by_hand():
    # p_t = 1/4
    loss = SparseFocal(gamma=1.0, alpha=[1.0, 2.0])
    value = loss([1], [[np.log(3.0), 0.0]])
    np.testing.assert_allclose(value, 2 * 0.75 * np.log(4), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_binary_follows_the_formula_with_soft_labels(gamma):
    rng = np.random.default_rng(0)
    y, z = rng.uniform(size=(5, 3)), 3 * rng.normal(size=(5, 3))
    smooth = 0.9 * y + 0.05
    p = 1 / (1 + np.exp(-z))
    p_t, alpha_t = smooth * p + (1 - smooth) * (1 - p), smooth * 0.3 + (1 - smooth) * 0.7
    entropy = -smooth * np.log(p) - (1 - smooth) * np.log(1 - p)
    expected = (alpha_t * (1 - p_t) ** gamma * entropy).mean(-1)
    loss = BinaryFocal(gamma=gamma, alpha=0.3, label_smoothing=0.1)
    np.testing.assert_allclose(loss.call(y, z), expected, rtol=1e-5)
    of_probabilities = BinaryFocal(gamma, 0.3, from_logits=False, label_smoothing=0.1)
    np.testing.assert_allclose(of_probabilities.call(y, p), expected, rtol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_softmax_follows_the_formula_and_sparse_is_categorical_of_one_hot_labels(gamma):
    rng = np.random.default_rng(1)
    labels, z = rng.integers(0, 4, (5, 2)), 3 * rng.normal(size=(5, 2, 4))
    alpha, p = np.array([0.1, 0.5, 1.0, 2.0]), softmax(z)
    p_t = np.take_along_axis(p, labels[..., None], -1)[..., 0]
    expected = -alpha[labels] * (1 - p_t) ** gamma * np.log(p_t)
    for arguments, y_pred in (({}, z), ({"from_logits": False}, p)):
        sparse = SparseFocal(gamma, alpha, **arguments)
        categorical = CategoricalFocal(gamma, alpha, **arguments)
        np.testing.assert_allclose(sparse.call(labels, y_pred), expected, rtol=1e-5)
        np.testing.assert_allclose(sparse.call(labels[..., None], y_pred), expected, rtol=1e-5)
        np.testing.assert_allclose(categorical.call(np.eye(4)[labels], y_pred), expected, rtol=1e-5)


def test_a_soft_label_weighs_the_classes():
    z, y = np.array([[1.0, 0.0, -1.0]]), np.array([[0.5, 0.3, 0.2]])
    p = softmax(z)
    expected = -(y * (1 - p) ** 2 * np.log(p)).sum(-1)
    np.testing.assert_allclose(CategoricalFocal().call(y, z), expected, rtol=1e-6)


def test_keras_computes_the_same():
    rng = np.random.default_rng(2)
    y, z = rng.integers(0, 2, (6, 3)).astype("float32"), rng.normal(size=(6, 3)).astype("float32")
    theirs = keras.losses.BinaryFocalCrossentropy(
        apply_class_balancing=True, alpha=0.3, gamma=1.5, from_logits=True, label_smoothing=0.1
    )
    ours = BinaryFocal(gamma=1.5, alpha=0.3, label_smoothing=0.1)
    np.testing.assert_allclose(ours(y, z), theirs(y, z), rtol=1e-5)
    one_hot = np.eye(3, dtype="float32")[rng.integers(0, 3, 6)]
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=0.3, gamma=1.5, from_logits=True)
    ours = CategoricalFocal(gamma=1.5, alpha=0.3)
    np.testing.assert_allclose(ours(one_hot, z), theirs(one_hot, z), rtol=1e-5)


def test_pytorch_computed_the_same():
    # torch 2.13.0, float64: the lines of torchvision.ops.sigmoid_focal_loss (alpha 0.25, gamma 2,
    # mean over the last axis), and -(1 - p_t)^2 log p_t from torch.log_softmax, alpha by class;
    # gradients of the sum over the examples by backward().
    z = tf.constant([[-2.0, 0.5, 3.0], [0.0, -30.0, 30.0]])
    y = tf.constant([[0.0, 1.0, 1.0], [1.0, 1.0, 0.3]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = BinaryFocal(gamma=2.0, alpha=0.25).call(y, z)
    np.testing.assert_allclose(value, [0.0060911218623101475, 4.572440566260994], rtol=1e-5)
    expected = [
        [0.001217735048848193, -0.011494749779242867, -2.6239320540689922e-05],
        [-0.024857232928332192, -0.0833333333337778, 0.06860000000020336],
    ]
    np.testing.assert_allclose(tape.gradient(value, z), expected, rtol=1e-5)
    z = tf.constant([[1.0, -1, 0.5, 2], [0, 3, -2, 1], [30, -30, 0, 0]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = SparseFocal(gamma=2.0, alpha=[0.25, 0.5, 1.0, 2.0]).call([0, 1, 0], z)
    expected = [0.22497011820494245, 0.002274074378678696, 0.0]
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-30)
    expected = [
        [-0.21760843051017761, 0.00851122568264862, 0.03814466711710696, 0.17095253771042204],
        [0.0015314692295800413, -0.0059016960291450125, 0.00020726182195337194, 0.0041629649776116],
        [0, 0, 0, 0],
    ]
    np.testing.assert_allclose(tape.gradient(value, z), expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_value_and_gradient_are_finite_at_the_hard_points(gamma, jit_compile):
    logits = tf.constant(
        [[-30.0, 30, 0], [300, -300, 0], [1e4, 0, 0], [0, 0, 0], [-np.inf, 2, 1]], tf.float32
    )
    labels = tf.constant([0, 1, 0, 2, 1])
    sure = tf.constant([[0.0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0.5, 0.5]])
    finite = logits[:4]

    def values_and_gradients():
        for loss, y_true, y_pred in (
            (SparseFocal(gamma), labels, logits),
            (CategoricalFocal(gamma), tf.one_hot(labels, 3), logits),
            (CategoricalFocal(gamma), tf.zeros([5, 3]), logits),
            (BinaryFocal(gamma), tf.one_hot(labels, 3)[:4], finite),
            (BinaryFocal(gamma), 1 - tf.one_hot(labels, 3)[:4], finite),
            (SparseFocal(gamma, from_logits=False), labels, sure),
            (CategoricalFocal(gamma, from_logits=False), tf.one_hot(labels, 3), sure),
            (BinaryFocal(gamma, from_logits=False), tf.one_hot(labels, 3), sure),
            (BinaryFocal(gamma, from_logits=False), 1 - tf.one_hot(labels, 3), sure),
        ):
            with tf.GradientTape() as tape:
                tape.watch(y_pred)
                value = loss.call(y_true, y_pred)
            yield value, tape.gradient(value, y_pred)

    found = tf.function(lambda: list(values_and_gradients()), jit_compile=jit_compile)()
    assert all(np.isfinite(tensor).all() for pair in found for tensor in pair)
    # a sure and wrong answer costs its logit, however sure
    np.testing.assert_allclose(found[0][0][1], 600.0, rtol=1e-6)


def mean_of(loss, y_true, y_pred, sample_weight=None):
    (ratio,) = compiled_ratios(
        name_losses(loss, y_pred),
        y=y_true,
        y_pred=y_pred,
        sample_weight=sample_weight,
        examples=tf.constant(2.0),
    ).values()
    return ratio.value()


def test_an_ignored_class_counts_neither_above_nor_below_the_line():
    z = tf.random.stateless_normal([2, 3, 4], [0, 1])
    labels = tf.constant([[0, 255, 3], [255, 255, 1]])
    loss = SparseFocal(ignore_class=255)
    each = SparseFocal().call([0, 3, 1], tf.gather_nd(z, [[0, 0], [0, 2], [1, 2]]))
    np.testing.assert_allclose(mean_of(loss, labels, z), np.mean(each), rtol=1e-6)
    np.testing.assert_allclose(loss(labels, z), np.mean(each), rtol=1e-6)
    weighted = mean_of(loss, labels, z, tf.constant([1.0, 3.0]))
    np.testing.assert_allclose(weighted, np.sum(each * [1.0, 1.0, 3.0]) / 3, rtol=1e-6)
    one_hot = tf.one_hot(tf.where(labels == 255, 2, labels), 4)
    categorical = CategoricalFocal(ignore_class=2)
    np.testing.assert_allclose(mean_of(categorical, one_hot, z), np.mean(each), rtol=1e-6)


def test_an_ignored_class_is_that_of_keras():
    z = tf.random.stateless_normal([4, 3], [0, 2])
    labels = tf.constant([0, -1, 2, -1])
    theirs = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    ours = SparseFocal(gamma=0.0, ignore_class=-1)
    np.testing.assert_allclose(ours(labels, z), theirs(labels, z), rtol=1e-6)


def test_a_batch_of_ignored_elements_only_is_zero():
    z = tf.random.stateless_normal([2, 3, 4], [0, 1])
    labels = tf.fill([2, 3], 255)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = mean_of(SparseFocal(ignore_class=255), labels, z)
    assert float(value) == 0
    assert np.all(tape.gradient(value, z).numpy() == 0)


def test_shapes():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(5,))
    y = rng.integers(0, 2, 5).astype(float)
    flat = BinaryFocal().call(y, z)
    assert flat.shape == (5,)
    np.testing.assert_array_equal(BinaryFocal().call(y, z[:, None]), flat)
    assert BinaryFocal().call(np.ones((2, 7, 3)), np.zeros((2, 7, 3))).shape == (2, 7)
    assert SparseFocal().call(np.ones((2, 7)), np.zeros((2, 7, 3))).shape == (2, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BinaryFocal(gamma=-1), "gamma=-1.*>= 0"),
        (lambda: SparseFocal(gamma=float("nan")), "gamma=nan.*>= 0"),
        (lambda: BinaryFocal(alpha=2.0), "alpha=2.0.*0 to 1"),
        (lambda: BinaryFocal(label_smoothing=-0.1), "label_smoothing=-0.1.*0 to 1"),
        (lambda: CategoricalFocal(alpha=[1, -1]), r"CategoricalFocal\(alpha=.*per class"),
        (lambda: SparseFocal(alpha=[1.0, 2.0]).call([0], [[0.0] * 3]), "2 classes.*Give one.*3"),
        (lambda: SparseFocal().call([[1.0, 0.0]], [[0.0, 0.0]]), "class index.*CategoricalFocal"),
        (lambda: CategoricalFocal().call([1.0], [[0.0, 0.0]]), "label per class.*SparseFocal"),
        (lambda: CategoricalFocal(ignore_class=255).call([[1.0]], [[0.0]]), "255.*1 classes"),
        (lambda: BinaryFocal().call(np.ones((2, 3)), np.ones((2, 4))), r"\(2, 3\).*\(2, 4\)"),
        (
            lambda: SparseFocal(dtype="bfloat16")([0], np.zeros((1, 300))),
            "256 classes.*received 300.*float32",
        ),
    ],
)
def test_errors_say_what_is_accepted(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_it_is_known_by_name():
    assert isinstance(losses.get("sparse_focal"), SparseFocal)
