"""Rows in one pass and as two factors in a run: the same weights as term by term."""

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

import losses
from losses import balancing
from tests.trainer.balancing.quadratics import STRATEGY, backward_of, balanced
from trainer import Trainer
from trainer.balancing import jacobian, weightings
from trainer.balancing.rows import shared_rows as together
from trainer.step.program import Discovery

RANDOM = np.random.default_rng(0)
NAMES = ("a", "b", "c")
X = {
    "size": RANDOM.normal(size=(48, 5)).astype("float32"),
    "words": RANDOM.integers(0, 9, (48, 7)),
    "image": RANDOM.normal(size=(48, 6, 6, 1)).astype("float32"),
}
Y = {name: RANDOM.normal(size=(48, 1)).astype("float32") for name in NAMES}
WEIGHTS = {name: RANDOM.uniform(size=48).astype("float32") for name in NAMES}
# how the rows are made -> whether a matrix is kept as two factors; None: term by term
CHOICES = {
    "one by one": None,
    "rows": lambda uses, shape, terms: False,
    "factors": lambda uses, shape, terms: bool(uses),
}


def build():
    """A shared layer called twice, an embedding with a mask, a convolution, norms, a penalty."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    size, words = keras.Input((5,), name="size"), keras.Input((7,), dtype="int32", name="words")
    image = keras.Input((6, 6, 1), name="image")
    twice = layers.Dense(5, activation="tanh", name="twice")
    text = layers.Embedding(9, 6, mask_zero=True, name="embedding")(words)
    text = layers.Dense(8, "tanh", name="by_word", kernel_regularizer="l2")(text)
    seen = layers.Flatten()(layers.Conv2D(3, 3, activation="relu")(image))
    joint = [twice(twice(size)), layers.GlobalAveragePooling1D()(text), layers.Dense(4)(seen)]
    trunk = layers.LayerNormalization()(layers.Concatenate()(joint))
    heads = {name: layers.Dense(1, name=name)(trunk) for name in NAMES}
    return keras.Model({"size": size, "words": words, "image": image}, heads)


def train(choice, balancer, strategy="one_device", **arguments):
    """The terms' weights in each row, the variables, and how many matrices were factored.

    Where all is one by one, None instead of their number.
    """
    taken, found, pays = [], [], CHOICES[choice]

    def choose(*given):
        taken.append(pays(*given))
        return taken[-1]

    def rows_together(*given):
        found.append(None if pays is None else together(*given))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.balancing.rows.one_pass.pays", choose)
        patch.setattr(jacobian, "shared_rows", rows_together)
        trainer = Trainer(
            build,
            optimizer=keras.optimizers.SGD(0.1),
            loss=dict.fromkeys(NAMES, "mse"),
            loss_weights={"a": 2.0},
            balancer=balancer,
            strategy=strategy,
            **arguments,
        )
        data = X, Y, WEIGHTS
        rows = trainer.fit(data, batch_size=16, steps=4, log_every=1, verbose=False).rows
    weights = np.array([[row[f"weight/{name}"] for name in NAMES] for row in rows])
    assert np.ptp(weights) > 0.01  # the balancer did something
    factored = None if any(rows is None for rows in found) else sum(taken)
    return weights, [np.asarray(v) for v in trainer.model.trainable_variables], factored


def alike(one, other):
    np.testing.assert_allclose(one[0], other[0], rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.fixture(scope="module")
def one_by_one():
    found = train("one by one", balancing.UPGrad())
    assert found[2] is None
    return found


def test_factors_in_one_pass_give_what_rows_one_by_one_give(one_by_one):
    found = train("factors", balancing.UPGrad())
    assert found[2] >= 4  # the embedding and three kernels, of those that the terms share
    alike(found, one_by_one)


def test_two_replicas_sum_rows_of_one_pass_and_agree_with_one(two_replicas, one_by_one):
    found = train("rows", balancing.UPGrad(), two_replicas)
    assert found[2] == 0
    alike(found, one_by_one)


@pytest.mark.very_slow
def test_rows_of_one_pass_are_those_one_by_one(one_by_one):
    alike(train("rows", balancing.UPGrad()), one_by_one)


@pytest.mark.very_slow
@pytest.mark.slow
def test_under_xla_between_balancings_and_at_a_place_of_the_user_they_agree_too():
    some = {"at": ["*by_word*", "*twice*", "embedding*"], "every": 2}
    found = train("factors", balancing.MGDA(**some), jit_compile=True)
    assert found[2] >= 3
    alike(found, train("one by one", balancing.MGDA(**some)))


@pytest.mark.parametrize(
    "balancer, accumulation, may_factor",
    [("UPGrad", 1, True), ("UPGrad", 2, False), ("GradDrop", 1, False)],
)
def test_what_is_summed_over_steps_or_read_itself_is_written_out(
    monkeypatch, balancer, accumulation, may_factor
):
    asked = []

    def note(backward, positions, at, allowed):
        asked.append(allowed)
        return {}, {}

    monkeypatch.setattr(weightings, "jacobian_and_rest", note)
    terms = balanced(getattr(balancing, balancer)())
    weighting = weightings.JacobianWeighting(terms, STRATEGY, Discovery(), accumulation)
    weighting.differentiate(backward_of(), None, None, None)
    assert asked == [may_factor]


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.very_slow)])
def test_sixteen_terms_are_balanced_as_by_hand_on_one_replica_and_two(two_replicas, jit):
    terms, x, rate = 16, X["size"], 0.5
    y = RANDOM.normal(size=(48, terms)).astype("float32")

    def build():
        keras.utils.set_random_seed(0)
        dense = [keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(terms)]
        return keras.Sequential([keras.Input((5,)), *dense])

    def square(k):
        return losses.term(lambda step: (step.y_pred[:, k] - step.y[:, k]) ** 2, name=f"t{k:02}")

    model = build()
    for _ in range(3):
        with tf.GradientTape() as tape:
            values = tf.reduce_mean((model(x) - y) ** 2, axis=0)
        rows = [
            tf.reshape(j, [terms, -1]) for j in tape.jacobian(values, model.trainable_variables)
        ]
        rows = tf.concat(rows, 1).numpy().astype("float64")
        direction = np.mean([r + rows.T @ scipy.optimize.nnls(rows.T, -r)[0] for r in rows], axis=0)
        sizes = np.cumsum([0, *(tf.size(v).numpy() for v in model.trainable_variables)])
        for v, start, end in zip(model.trainable_variables, sizes, sizes[1:], strict=False):
            v.assign_sub(rate * direction[start:end].reshape(v.shape))
    for strategy in ("one_device", two_replicas):
        trainer = Trainer(
            build,
            optimizer=keras.optimizers.SGD(rate),
            terms=[square(k) for k in range(terms)],
            balancer=balancing.UPGrad(),
            strategy=strategy,
            jit_compile=jit,
        )
        trainer.fit((x, y), batch_size=48, steps=3, log_every=1, verbose=False)
        for mine, theirs in zip(trainer.model.weights, model.weights, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=2e-5)
