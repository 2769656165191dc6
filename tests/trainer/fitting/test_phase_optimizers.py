"""Phases with Keras optimizers of their own: by hand, resumed, on replicas, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Phase, Trainer
from trainer.optimizers.arguments import describe_optimizer

RNG = np.random.default_rng(3)
X, Y = (RNG.normal(size=(64, n)).astype(np.float32) for n in (3, 1))
STEPS = 18
GROUPS = {"body": "body/*", "head": "head/*"}


def model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, "tanh", name="body"), keras.layers.Dense(1, name="head")]
    return keras.Sequential([keras.Input([3]), *layers])


def phases():
    return [
        Phase("first", until=5),
        Phase("sgd", until=11, optimizer=keras.optimizers.SGD(0.05, momentum=0.9)),
        Phase("last", learning_rate=0.02),
    ]


def make(**settings):
    settings = {"phases": phases(), "optimizer": keras.optimizers.Adam(0.01), **settings}
    return Trainer(model, loss="mse", **settings)


def fit(trainer, steps=STEPS, **more):
    more = {"batch_size": 16, "shuffle": False, "log_every": 2, "verbose": False, **more}
    return trainer.fit((X, Y), steps=steps, **more)


def compare(trainer, weights, tolerance=5e-6):
    for mine, theirs in zip(trainer.model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=tolerance)


@pytest.fixture(scope="module")
def by_hand():
    """The weights of a loop that goes from Adam to SGD and back to the same Adam."""
    network = model()
    adam, sgd = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.05, momentum=0.9)
    for step in range(STEPS):
        start = step % 4 * 16
        with tf.GradientTape() as tape:
            error = network(X[start : start + 16]) - Y[start : start + 16]
            total = tf.reduce_mean(tf.square(error))
        variables = network.trainable_variables
        if step == 11:
            adam.learning_rate = 0.02
        optimizer = sgd if 5 <= step < 11 else adam
        gradients = tape.gradient(total, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return network.get_weights()


@pytest.mark.parametrize("settings", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_a_phase_trains_by_its_own_optimizer_as_by_hand(by_hand, settings):
    trainer = make(**settings)
    rows = fit(trainer).rows
    compare(trainer, by_hand)
    rates = {row["step"]: row["learning_rate"] for row in rows}
    assert rates[4] == pytest.approx(0.01)
    assert rates[6] == rates[10] == pytest.approx(0.05)
    assert rates[12] == rates[STEPS] == pytest.approx(0.02)


def test_it_does_on_two_replicas(by_hand, two_replicas):
    trainer = make(strategy=two_replicas)
    fit(trainer)
    compare(trainer, by_hand)


def test_a_run_goes_on_in_the_midst_of_such_a_phase_bit_for_bit(tmp_path):
    whole = make()
    fit(whole)
    for steps in (3, 8, 11, 14, STEPS):  # 8 lies in the phase, 14 behind it
        again = make(workdir=tmp_path)
        fit(again, steps)
    compare(again, whole.model.get_weights(), 0)


def test_further_fits_of_one_trainer_go_on_too_with_phases_made_anew():
    whole, parts = make(), make()
    fit(whole)
    for steps in (8, 10, STEPS):
        fit(parts, steps, phases=phases())
    compare(parts, whole.model.get_weights(), 0)


def test_callbacks_and_the_trainer_see_the_optimizer_of_the_phase(capsys):
    class Look(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = {}

        def on_train_batch_end(self, batch, logs=None):
            self.seen[batch] = type(self.model.optimizer).__name__

    look, trainer = Look(), make(phases=phases()[:2])
    fit(trainer, 8, callbacks=[look])
    assert look.seen == {0: "Adam", 1: "Adam", 2: "Adam", 3: "Adam"} | {
        4: "SGD",
        5: "SGD",
        6: "SGD",
        7: "SGD",
    }  # the phase begins behind its last step
    trainer.optimizer.learning_rate = 0.5
    assert fit(trainer, 10, verbose=True).last()["learning_rate"] == pytest.approx(0.5)
    assert "set by hand: learning_rate of sgd/model 0.05 -> 0.5" in capsys.readouterr().out


def test_a_group_that_is_not_named_keeps_the_optimizer_of_the_trainer():
    adam = {name: keras.optimizers.Adam(0.01) for name in GROUPS}
    trainer = make(
        optimizer=adam,
        groups=GROUPS,
        phases=[Phase("a", until=3), Phase("b", optimizer={"head": keras.optimizers.SGD(0.1)})],
    )
    row = fit(trainer, 6).last()
    rates = {name: row[f"learning_rate/{name}"] for name in GROUPS}
    assert rates == pytest.approx({"body": 0.01, "head": 0.1})


def test_what_is_described_of_an_optimizer_does_not_depend_on_what_else_was_made():
    first, second = (describe_optimizer(keras.optimizers.SGD(0.1)) for _ in range(2))
    assert first == second and first["name"] == "sgd"
    assert describe_optimizer(keras.optimizers.SGD(0.1, name="mine_2"))["name"] == "mine_2"


def test_a_phase_that_begins_again_has_a_fresh_optimizer():
    trainer = make(
        phases=[Phase("a", until=3), Phase("b", optimizer=keras.optimizers.Adagrad(1.0))]
    )
    fit(trainer, 6)
    fit(trainer, 7, phases=[Phase("between")])
    fit(trainer, 9)
    assert int(trainer.optimizer.iterations.numpy()) == 2
    slots = trainer.optimizer.variables[2:]
    assert all(np.all(np.asarray(slot) >= 0.1) for slot in slots)  # where Adagrad's begin


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (keras.optimizers.SGD, "optimizer=SGD is a class. Give a Keras optimizer"),
        (0.1, "optimizer=0.1. Give a Keras optimizer or its name"),
        ("nadamm", "nadamm"),
        ({"head": "sgd"}, "optimizer= is a dict by group, but there are no groups="),
        (
            keras.optimizers.SGD(gradient_accumulation_steps=2),
            "does not go with an optimizer that accumulates gradients. That of phase 'b' does",
        ),
        (keras.optimizers.SGD(use_ema=True), r"keeps averages of the weights \(use_ema\)"),
    ],
    ids=["class", "number", "unknown", "group", "accumulation", "averages"],
)
def test_what_cannot_be_one_is_refused_before_training(optimizer, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit(make(phases=[Phase("a", until=4), Phase("b", optimizer=optimizer)]))


def test_a_phase_with_an_optimizer_has_no_rate_beside_it_and_no_helps():
    with pytest.raises(ValueError, match="which has its own rate"):
        Phase("a", optimizer="sgd", learning_rate=0.1)
    trainer = make(phases=[Phase("a", optimizer="sgd")], helps_every=2)
    with pytest.raises(ValueError, match="phase 'a' has its own"):
        fit(trainer, validation_data=(X, Y))


def test_second_order_methods_have_names():
    assert type(Phase("a", optimizer="lbfgs").optimizer).__name__ == "LBFGS"
    with pytest.raises(ValueError, match="phases="):
        make(optimizer="lbfgs", phases=())


def test_a_run_is_not_resumed_with_another_optimizer_in_its_phase(tmp_path):
    fit(make(workdir=tmp_path), 8)
    other = [Phase("first", until=5), Phase("sgd", optimizer="adam")]
    with pytest.raises(ValueError, match="Phase 'sgd' has another optimizer than the checkpoint"):
        fit(make(workdir=tmp_path, phases=other))
