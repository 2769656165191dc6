"""A `train_step` of one's own may take the gradients of several objectives, each its own trace."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

X = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
RATE = 0.1


class Phases(Trainer):
    """Moves the head up one term, then the other, where a phase has its term alone."""

    phase, alone = None, True

    def compute_terms(self, step):
        terms = {"first": step.y_pred[:, 0], "second": tf.square(step.y_pred[:, 0])}
        return {self.phase: terms[self.phase]} if self.phase and self.alone else terms

    def train_step(self, batch):
        records = []
        for self.phase in ("first", "second"):
            gradients, record = self.compute_gradients(batch)
            self.apply_gradients(gradients, record)
            records.append(record)
        self.phase = None
        return records[0].joined(records[1])


def make(kind=Phases, **arguments):
    def build():
        return keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")]
        )

    return kind(build, optimizer=keras.optimizers.SGD(RATE), loss=None, **arguments)


def by_hand(steps):
    """The kernel and the last values of both terms, in numpy."""
    kernel = np.ones([2, 1])
    for _ in range(steps):
        first = (X @ kernel).mean()
        kernel = kernel - RATE * X.mean(0)[:, None]
        output = X @ kernel
        second = np.square(output).mean()
        kernel = kernel - RATE * 2 * X.T @ output / len(X)
    return kernel, first, second


@pytest.mark.parametrize("way", ["traced", "eager", "xla", "two replicas"])
def test_each_phase_is_trained_on_its_own_terms(way, two_replicas):
    more = {"eager": {"run_eagerly": True}, "xla": {"jit_compile": True}}
    more["two replicas"] = {"strategy": two_replicas}
    trainer = make(**more.get(way, {}))
    row = trainer.fit(X, steps=3, batch_size=8, log_every=1, verbose=False).rows[-1]
    kernel, first, second = by_hand(3)
    np.testing.assert_allclose(trainer.model.get_weights()[0], kernel, rtol=1e-5)
    assert row["raw/first"] == pytest.approx(first, rel=1e-5)
    assert row["raw/second"] == pytest.approx(second, rel=1e-5)
    assert row["total"] == pytest.approx(first + second, rel=1e-5)


def test_a_term_that_only_a_phase_has_is_refused():
    class Late(Phases):
        def compute_terms(self, step):
            terms = super().compute_terms(step)
            return {"other": terms["first"]} if self.phase else terms

    with pytest.raises(ValueError, match=r"compute_gradients\(\) finds the term 'other'"):
        make(Late).fit(X, steps=1, batch_size=8, verbose=False)


def test_a_term_of_compute_terms_trains_the_group_it_names():
    class Parts(Trainer):
        def compute_terms(self, step):
            size = tf.square(step.y_pred[:, 0])
            return {"size": losses.Trains(size, "head"), "drift": losses.Trains(-size, ["body"])}

    inputs = keras.Input((2,))
    body = keras.layers.Dense(2, name="body", use_bias=False)(inputs)
    head = keras.layers.Dense(1, name="head", use_bias=False)(body)
    model = keras.Model(inputs, head, name="net")
    (b, h), x = (weights.copy() for weights in model.get_weights()), X
    trainer = Parts(
        model,
        optimizer={name: keras.optimizers.SGD(RATE) for name in ("body", "head")},
        groups={"body": "body/*", "head": "head/*"},
    )
    trainer.fit(x, steps=1, batch_size=8, verbose=False)
    slope = 2 * (x @ b @ h) / len(x)
    np.testing.assert_allclose(model.get_weights()[1], h - RATE * (x @ b).T @ slope, rtol=1e-4)
    np.testing.assert_allclose(model.get_weights()[0], b + RATE * x.T @ slope @ h.T, rtol=1e-4)


def test_a_term_object_says_so_by_its_argument():
    term = losses.term(lambda step: losses.Trains(step.y_pred[:, 0], "body"), name="size")
    with pytest.raises(TypeError, match="Term 'size' returned Trains, which is no tensor"):
        make(Trainer, terms=[term]).fit(X, steps=1, batch_size=8, verbose=False)
