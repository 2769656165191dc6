"""Research's names are free: a subclass may give its attributes any name but a public one of the
Trainer's, and setting one of those is an error at once."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer
from trainer.hooks import RESERVED

# names that are used inside, or once were
FREE = [
    "state",
    "loops",
    "reading",
    "objective",
    "hosts",
    "compiling",
    "scatter",
    "run",
    "programs",
]
TAKEN = [
    "model",
    "step",
    "terms",
    "workdir",
    "config",
    "seed",
    "strategy",
    "name",
    "optimizer",
    "loss_parameters",
    "fit",
]


def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="line")])


def data():
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    return x, x[:, :1]


class Named(Trainer):
    """Keeps one parameter under each free name; each is drawn to 1."""

    def build_model(self):
        for name in FREE:
            setattr(self, name, losses.Parameter(f"own_{name}", 0.0))
        return build()

    def compute_terms(self, step):
        apart = [tf.square(tf.convert_to_tensor(getattr(self, name)) - 1.0) for name in FREE]
        return {**super().compute_terms(step), "apart": tf.add_n(apart)}


def train(trainer, steps):
    return trainer.fit(data(), batch_size=32, steps=steps, verbose=False)


def test_parameters_of_any_other_name_train():
    trainer = Named(optimizer=keras.optimizers.SGD(0.25), loss="mse")
    train(trainer, 3)
    assert sorted(trainer.loss_parameters) == sorted(f"own_{name}" for name in FREE)
    for name in FREE:
        # each step halves the distance from 1
        assert float(getattr(trainer, name)) == pytest.approx(1 - 0.5**3), name


def test_parameters_of_any_other_name_are_saved_with_the_run(workdir):
    def make():
        return Named(optimizer=keras.optimizers.SGD(0.25), loss="mse", workdir=workdir)

    train(make(), 2)
    resumed = make()
    train(resumed, 3)
    assert int(resumed.step) == 3
    assert float(resumed.state) == pytest.approx(1 - 0.5**3)


def test_plain_values_of_any_other_name_stay_what_they_are():
    trainer = Trainer(build(), optimizer="sgd", loss="mse")
    for name in FREE:
        setattr(trainer, name, name.upper())
    train(trainer, 1)
    assert {name: getattr(trainer, name) for name in FREE} == {n: n.upper() for n in FREE}


@pytest.mark.parametrize("name", TAKEN)
def test_a_public_name_set_in_build_model_is_an_error_at_once(name):
    class Colliding(Trainer):
        def build_model(self):
            setattr(self, name, losses.Parameter("mine", 0.0))
            raise AssertionError("the line after was reached")

    with pytest.raises(ValueError, match=rf"Colliding sets self\.{name}, which every Trainer has"):
        Colliding(optimizer="sgd", loss="mse")


@pytest.mark.parametrize("name", TAKEN)
def test_a_public_name_set_before_the_constructor_is_an_error_too(name):
    class Early(Trainer):
        def __init__(self):
            setattr(self, name, "mine")
            super().__init__(build(), optimizer="sgd", loss="mse")

    with pytest.raises(ValueError, match=rf"another name, such as self\.own_{name}"):
        Early()


@pytest.mark.parametrize("name", TAKEN)
def test_a_public_name_stays_the_trainers_after_it_was_refused(name):
    trainer = Trainer(build(), optimizer="sgd", loss="mse")
    before = getattr(trainer, name)
    with pytest.raises(ValueError, match=rf"Trainer sets self\.{name}, which every Trainer has"):
        setattr(trainer, name, "mine")
    assert getattr(trainer, name) == before


def test_what_a_subclass_overrides_is_no_attribute_to_set():
    hooks = {"build_model", "build_terms", "forward", "compute_terms", "train_step"}
    assert hooks <= RESERVED and set(TAKEN) <= RESERVED
    assert not RESERVED & set(FREE)


def test_a_callbacks_own_model_is_the_trainers():
    """Keras gives each callback its model; the Trainer is one, and keeps its own."""
    trainer = Trainer(build(), optimizer="sgd", loss="mse")
    model = trainer.model
    train(trainer, 1)
    assert trainer.model is model
