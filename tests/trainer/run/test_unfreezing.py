"""`trainable` set otherwise during a run: between two fits, by a callback, and over a resume."""

import keras
import numpy as np
import tensorflow as tf

import losses
from trainer import Trainer

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
DATA = X, X[:, :1]
FIT = dict(batch_size=8, shuffle=False, verbose=False)


def make_model(regularizer=None):
    keras.utils.set_random_seed(3)
    base = keras.layers.Dense(3, name="base", kernel_regularizer=regularizer)
    head = keras.layers.Dense(1, name="head")
    return keras.Sequential([keras.Input((4,)), base, head], name="net")


def make_trainer(model, optimizer=None, **arguments):
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
    return Trainer(model, optimizer=optimizer, loss="mse", **arguments)


def momentum_by_hand(phases, regularizer=0.0):
    """The weights after `phases`, (base trains, steps), of SGD with momentum 0.9 in NumPy."""
    model = make_model()
    weights = [weight.numpy().astype("float64") for weight in model.weights]
    slots = [np.zeros_like(weight) for weight in weights]
    number = 0
    for base_trains, steps in phases:
        for _ in range(steps):
            rows = slice(8 * (number % 2), 8 * (number % 2) + 8)
            x, y = X[rows], X[rows, :1]
            kernel, bias, head, offset = weights
            hidden = x @ kernel + bias
            slope = 2 * (hidden @ head + offset - y) / 8
            back = slope @ head.T
            gradients = [
                x.T @ back + 2 * regularizer * kernel,
                back.sum(0),
                hidden.T @ slope,
                slope.sum(0),
            ]
            for place in range(0 if base_trains else 2, 4):
                slots[place] = 0.9 * slots[place] - 0.1 * gradients[place]
                weights[place] = weights[place] + slots[place]
            number += 1
    return weights


def check(model, wanted):
    for weight, value in zip(model.weights, wanted, strict=True):
        np.testing.assert_allclose(weight.numpy(), value, rtol=1e-5, atol=1e-6)


class Sets(keras.callbacks.Callback):
    """Sets a layer's `trainable` at the ends of epochs."""

    def __init__(self, layer, by_epoch):
        super().__init__()
        self.layer, self.by_epoch = layer, by_epoch

    def on_epoch_end(self, epoch, logs=None):
        self.layer.trainable = self.by_epoch.get(epoch, self.layer.trainable)


def test_what_begins_to_train_gets_slots_and_what_stops_keeps_its_own():
    model = make_model()
    base, optimizer = model.layers[0], keras.optimizers.SGD(0.1, momentum=0.9)
    trainer = make_trainer(model, optimizer)
    for phase, trains in enumerate((False, True, False, True)):
        base.trainable = trains
        trainer.fit(DATA, steps=2 * phase + 2, **FIT)
    check(model, momentum_by_hand([(False, 2), (True, 2), (False, 2), (True, 2)]))
    assert trainer.optimizer is optimizer and int(optimizer.iterations) == 8


def test_a_callback_changes_what_trains_within_a_fit():
    model = make_model()
    base = model.layers[0]
    base.trainable = False
    make_trainer(model).fit(DATA, epochs=5, callbacks=[Sets(base, {0: True, 2: False})], **FIT)
    check(model, momentum_by_hand([(False, 2), (True, 4), (False, 4)]))


def test_a_regularizer_counts_where_its_variable_trains():
    model = make_model(keras.regularizers.L2(0.01))
    base = model.layers[0]
    base.trainable = False
    trainer = make_trainer(model)
    callbacks = [Sets(base, {0: True})]
    history = trainer.fit(DATA, epochs=3, log_every=4, callbacks=callbacks, **FIT)
    check(model, momentum_by_hand([(False, 2), (True, 4)], regularizer=0.01))
    first, last = history.rows[0], history.rows[-1]
    assert first["step"] == 2 and "terms/regularization/net/base/kernel" not in first
    parts = last["terms/mean_squared_error"] + last["terms/regularization/net/base/kernel"]
    assert abs(last["total"] - parts) <= 1e-6 * last["total"]
    wanted = 0.01 * float(np.square(base.kernel.numpy()).sum())
    evaluated = trainer.evaluate(DATA)["raw/regularization/net/base/kernel"]
    assert abs(evaluated - wanted) < 1e-6


def test_a_run_that_is_continued_trains_what_it_trained(workdir):
    def run(steps):
        """A script in two phases, of which the second may be cut short."""
        model = make_model()
        base = model.layers[0]
        base.trainable = False
        trainer = make_trainer(model, workdir=workdir)
        trainer.fit(DATA, steps=2, **FIT)
        base.trainable = True
        trainer.fit(DATA, steps=steps, **FIT)
        return model, trainer

    run(4)
    model, trainer = run(8)
    check(model, momentum_by_hand([(False, 2), (True, 6)]))
    assert trainer.step == 8


def test_what_a_callback_has_set_is_continued(workdir):
    def run(epochs):
        model = make_model(keras.regularizers.L2(0.01))
        base = model.layers[0]
        base.trainable = False
        trainer = make_trainer(model, workdir=workdir)
        trainer.fit(DATA, epochs=epochs, callbacks=[Sets(base, {0: True})], **FIT)
        return model

    run(2)
    check(run(4), momentum_by_hand([(False, 2), (True, 6)], regularizer=0.01))


def test_a_script_that_sets_it_otherwise_is_followed(workdir):
    def run(steps, trains):
        model = make_model()
        model.layers[0].trainable = trains
        make_trainer(model, workdir=workdir).fit(DATA, steps=steps, **FIT)
        return model

    run(2, False)
    model = run(4, True)
    check(model, momentum_by_hand([(False, 2), (True, 2)]))
    frozen = make_model()
    frozen.layers[0].trainable = False
    wanted = np.mean(np.square(np.asarray(model(X)) - DATA[1]))
    evaluated = make_trainer(frozen, workdir=workdir).evaluate(DATA)["total"]
    assert abs(evaluated - wanted) < 1e-6  # of a checkpoint that has more slots


def test_two_replicas_follow_as_one_does(two_replicas):
    trainer = make_trainer(make_model, strategy=two_replicas)
    base = trainer.model.layers[0]
    base.trainable = False
    trainer.fit(DATA, steps=2, **FIT)
    base.trainable = True
    trainer.fit(DATA, steps=4, **FIT)
    check(trainer.model, momentum_by_hand([(False, 2), (True, 2)]))


def test_a_group_may_be_frozen_for_a_while():
    model = make_model()
    base = model.layers[0]
    optimizers = {name: keras.optimizers.SGD(0.1, momentum=0.9) for name in ("base", "head")}
    groups = {"base": "base/*", "head": "head/*"}
    base.trainable = False
    trainer = Trainer(model, optimizer=optimizers, groups=groups, loss="mse")
    for phase, trains in enumerate((False, True, False)):
        base.trainable = trains
        trainer.fit(DATA, steps=2 * phase + 2, **FIT)
    check(model, momentum_by_hand([(False, 2), (True, 2), (False, 2)]))


def below_0(kernel):
    return -0.01 * tf.reduce_sum(tf.square(kernel))


def test_what_is_watched_in_windows_follows_the_terms(capsys):
    # the base's regularizer is a term once it trains, and below 0
    model = make_model(below_0)
    base, head = model.layers
    base.trainable, head.kernel.regularizer = False, keras.regularizers.L2(0.01)
    trainer = make_trainer(model, loss_weights={"regularization/*": losses.UncertaintyWeight()})
    callbacks = [Sets(base, {0: True})]
    trainer.fit(DATA, epochs=4, log_every=2, callbacks=callbacks, **FIT)
    assert "term 'regularization/net/base/kernel' is negative" in capsys.readouterr().err
