"""A step that is tried is the step that a fit would take, and changes nothing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Phase, Sources, Trainer

X = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
Y = (X[:, :1] + 1).astype("float32")


def build():
    """y = sum of x at first, beside a frozen layer and one that nothing reaches."""
    inputs = keras.Input((3,))
    line = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False, name="line")(inputs)
    still = keras.layers.Dense(1, kernel_initializer="zeros", name="still", trainable=False)(inputs)
    idle = keras.layers.Dense(2, name="idle")(inputs)
    outputs = {"out": keras.layers.add([line, still]), "idle": idle}
    return keras.Model(inputs, outputs, name="net")


def terms():
    def size(step):
        return tf.reduce_mean(tf.square(step.model.get_layer("line").kernel))

    return [losses.term(size, name="size", weight=0.5), losses.term(lambda _: 2.0, name="constant")]


def make(**arguments):
    arguments = {"loss": {"out": "mse", "idle": None}, "terms": terms(), **arguments}
    return Trainer(build, optimizer="sgd", **arguments)


@pytest.fixture(scope="module")
def tried():
    with pytest.warns(UserWarning, match="No term reaches net/idle|No term reaches idle"):
        return make().try_step(X, {"out": Y})


def test_each_term_is_told_as_computed_by_hand(tried):
    error = (X.sum(1) - Y[:, 0]).astype("float64")
    term = tried.terms["out"]
    assert (term.origin, term.shape) == ("compiled", (9,))
    assert (term.least, term.largest) == pytest.approx((min(error**2), max(error**2)), rel=1e-4)
    assert term.raw == pytest.approx(np.mean(error**2), rel=1e-5)
    slope = 2 * (error[:, None] * X).mean(0)
    assert term.gradient_norm == pytest.approx(np.linalg.norm(slope), rel=1e-5)
    np.testing.assert_allclose(tried.examples["out"], error**2, rtol=1e-4)
    size = tried.terms["size"]
    assert (size.shape, size.least, size.raw, size.weight) == ((), None, 1.0, 0.5)
    assert size.gradient_norm == pytest.approx(2 * np.sqrt(3) / 3, rel=1e-6)
    assert tried.total == pytest.approx(np.mean(error**2) + 0.5 + 2.0, rel=1e-5)


def test_what_reaches_nothing_and_what_nothing_reaches_is_said(tried):
    assert [path.split("/")[-2] for path in tried.terms["out"].gradients] == ["line"]
    assert not tried.terms["constant"].gradients
    assert [path.split("/")[-2] for path in tried.unreached] == ["idle", "idle"]
    assert [path.split("/")[-2] for path in tried.frozen] == ["still", "still"]
    shown = repr(tried)
    assert "no variable is reached by: constant" in shown and "no term reaches: " in shown
    assert "[9]" in shown and "one number" in shown and "total " in shown
    assert "<th>reaches</th>" in tried._repr_html_() and "frozen: " in tried._repr_html_()


def dropped():
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    return keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])


@pytest.mark.parametrize("eager", [False, True])
def test_nothing_is_changed_by_it(eager):
    """Weights, statistics, draws, the place in the data: the fit is that without a trial."""

    def course(tries):
        keras.utils.set_random_seed(0)
        one = Trainer(dropped, optimizer="adam", loss="mse", run_eagerly=eager, metrics=["mae"])
        data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)
        totals = [one.try_step(data).total for _ in range(tries)]
        rows = one.fit(data, steps=3, log_every=1, verbose=0).rows
        return totals, [row["total"] for row in rows], [row["metrics/mae"] for row in rows], one

    tried, rows, metrics, one = course(2)
    without = course(0)
    assert (rows, metrics) == without[1:3]
    for ours, theirs in zip(one.model.variables, without[3].model.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    # and it is the fit's own first step, dropout included
    assert tried == pytest.approx([rows[0]] * 2, rel=1e-6)


def test_a_pipeline_that_another_reading_would_change_is_refused():
    data = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(9, seed=1).batch(4)
    one = Trainer(dropped, optimizer="adam", loss="mse")
    with pytest.raises(ValueError, match=r"data draws \(shuffle\).*Give one batch as arrays"):
        one.try_step(data)
    one.fit(X, Y, batch_size=4, steps=2, verbose=0)
    assert one.try_step(X, Y).terms["mean_squared_error"].shape == (9,)
    first = one.try_step(X, Y, batch_size=4).terms["mean_squared_error"]
    assert first.shape == (4,)  # that of a fit: shuffled


@pytest.mark.parametrize("xla", [False, True])
def test_two_replicas_tell_what_one_does(two_replicas, xla):
    def tried(strategy):
        one = Trainer(
            lambda: keras.Sequential(
                [keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")]
            ),
            loss="mse",
            terms=[losses.term(lambda s: tf.square(s.y_pred)[:, 0], name="other", source="b")],
            strategy=strategy,
            jit_compile=xla and strategy != "one_device",
        )
        return one.try_step(Sources(a=(X, Y), b=(X[:1],)))

    ours, theirs = tried(two_replicas), tried("one_device")
    assert ours.terms["other"].shape == (1,)  # one of the two replicas has none of it
    for name, term in theirs.terms.items():
        assert ours.terms[name].raw == pytest.approx(term.raw, rel=1e-6)
        assert ours.terms[name].gradient_norm == pytest.approx(term.gradient_norm, rel=1e-5)
        np.testing.assert_allclose(ours.examples[name], theirs.examples[name], rtol=1e-5)


def test_weights_are_those_of_the_phase_and_by_hand():
    phases = [Phase("first", until=5, weights={"size": 3.0}), Phase("second")]
    one = make(loss={"out": "mse"}, phases=phases)
    with pytest.warns(UserWarning, match="No term reaches"):
        assert one.try_step(X, {"out": Y}).terms["size"].weight == 3.0
    one.set_weight("constant", 4.0)
    assert one.try_step(X, {"out": Y}).terms["constant"].weight == 4.0


def test_more_than_a_batch_is_refused():
    many = np.zeros([2000, 3], "float32")
    with pytest.raises(ValueError, match=r"takes one batch, and was given 2000 examples. Give b"):
        make().try_step(many, {"out": many[:, :1]})
