"""The optimizer that trains is the user's: its arguments, exclusions, schedules and state."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

optimizers = keras.optimizers
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :1] * 2 + 1


class Faster(optimizers.Adam):
    """An argument that its configuration does not have."""

    def __init__(self, factor=1.0, **arguments):
        super().__init__(**arguments)
        self.factor = factor

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.factor)


class WarmUp(optimizers.schedules.LearningRateSchedule):
    """A schedule without `get_config`."""

    def __init__(self, peak):
        super().__init__()
        self.peak = peak

    def __call__(self, step):
        return self.peak * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / 4.0)


def model():
    layers = [
        keras.layers.Dense(3, "tanh", name="a", kernel_initializer="ones"),
        keras.layers.Dense(1, name="b", kernel_initializer="ones"),
    ]
    return keras.Sequential([keras.Input((4,)), *layers], name="net")


def by_keras(make, steps=3, made=None):
    """The weights after steps of `Model.fit` with the whole data as one batch."""
    made = made or model()
    if make is not None:
        made.compile(make(), "mse")
    made.fit(X, Y, batch_size=32, epochs=steps, shuffle=False, verbose=0)
    return made.get_weights()


def fitted(trainer, steps=3):
    trainer.fit((X, Y), steps=steps, batch_size=32, shuffle=False, verbose=False)
    return trainer.model.get_weights()


def assert_close(mine, theirs, **tolerance):
    tolerance = tolerance or {"rtol": 1e-5, "atol": 1e-6}
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), **tolerance)


def parameter():
    """A loss whose parameter no gradient of the model depends on."""
    a = losses.Parameter("a", 1.0)
    return lambda y, p: tf.reduce_mean((y - p) ** 2, -1) + 0.1 * tf.convert_to_tensor(a) ** 2


def kernels_and_biases(strategy):
    return dict(groups={"kernels": "*kernel", "biases": "*bias"}, strategy=strategy)


WAYS = {
    "one device": lambda two: dict(loss="mse", strategy="one_device"),
    "two replicas": lambda two: dict(loss="mse", strategy=two),
    "a loss parameter": lambda two: dict(loss=parameter(), strategy="one_device"),
    "a loss parameter on two replicas": lambda two: dict(loss=parameter(), strategy=two),
    "one object for two groups": lambda two: dict(loss="mse", **kernels_and_biases("one_device")),
    "one object for two groups on two replicas": lambda two: dict(
        loss="mse", **kernels_and_biases(two)
    ),
}
KINDS = {
    "an argument": lambda: Faster(factor=10.0, learning_rate=0.01),
    "a schedule": lambda: optimizers.SGD(WarmUp(0.1), momentum=0.5),
    "a lambda": lambda: optimizers.RMSprop(lambda: 0.02),
    "a setting of its own": lambda: set_later(optimizers.Adam(0.001)),
}


def set_later(optimizer):
    optimizer.learning_rate = 0.05
    optimizer.clipnorm = 0.5
    return optimizer


PAIRS = [("an argument", way) for way in WAYS]
PAIRS += [(kind, way) for kind in KINDS for way in WAYS if way.startswith(("two", "one object"))]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("kind", "way"), sorted(set(PAIRS)))
def test_an_optimizer_trains_as_under_keras_however_it_is_used(kind, way, two_replicas):
    trainer = Trainer(model, optimizer=KINDS[kind](), **WAYS[way](two_replicas))
    assert_close(fitted(trainer), by_keras(KINDS[kind]))


def test_a_new_optimizer_on_one_device_is_the_users_own_object():
    optimizer, other = Faster(factor=2.0, learning_rate=0.1), optimizers.SGD(0.1)
    assert Trainer(model, optimizer=optimizer, loss="mse").optimizer is optimizer
    groups = {"kernels": "*kernel", "biases": "*bias"}
    chosen = {"kernels": Faster(learning_rate=0.1), "biases": other}
    trainer = Trainer(model, optimizer=chosen, groups=groups, loss="mse", strategy="one_device")
    assert trainer.optimizer == chosen


def test_an_optimizer_made_in_the_scope_is_used_as_it_is(two_replicas):
    with two_replicas.scope():
        optimizer = Faster(factor=2.0, learning_rate=0.1)
    trainer = Trainer(model, optimizer=optimizer, loss="mse", strategy=two_replicas)
    assert trainer.optimizer is optimizer


def test_one_object_for_the_model_and_the_loss_parameters_becomes_two():
    optimizer = optimizers.Adam(0.1)
    trainer = Trainer(
        model, optimizer=optimizer, loss_parameter_optimizer=optimizer, loss=parameter()
    )
    fitted(trainer, 2)
    own = trainer._run.program.optimizers.of_group
    assert own["model"] is optimizer
    assert own["loss_parameters"] is not optimizer
    # Adam's first steps are of the learning rate's size
    assert float(trainer.loss_parameters["a"]) == pytest.approx(0.8, abs=1e-3)


# Weight decay. No gradient reaches the weights: what moves, moves by decay alone, to 0.9.

EXCLUSIONS = {
    "names": lambda made, net: made.exclude_from_weight_decay(var_names=["bias"]),
    "variables": lambda made, net: made.exclude_from_weight_decay(
        var_list=[layer.bias for layer in net.layers]
    ),
}


def decaying(make=optimizers.AdamW):
    return make(0.01, weight_decay=10.0)


def without_gradient(a):
    return lambda y, p: tf.reduce_mean(0.0 * p, -1) + 0.0 * tf.convert_to_tensor(a)


def decayed(optimizer, net, **arguments):
    for variable in net.trainable_variables:
        variable.assign(tf.ones_like(variable))
    a = losses.Parameter("a", 1.0)
    trainer = Trainer(net, optimizer=optimizer, loss=without_gradient(a), **arguments)
    weights = [float(np.mean(weight)) for weight in fitted(trainer, 1)]
    return [*weights, float(trainer.loss_parameters["a"])]


@pytest.mark.parametrize("exclusion", EXCLUSIONS)
def test_what_the_user_excludes_from_weight_decay_stays_so_beside_a_loss_parameter(exclusion):
    net, optimizer = model(), decaying()
    EXCLUSIONS[exclusion](optimizer, net)
    # kernels decay; biases and the loss parameter do not
    assert decayed(optimizer, net) == pytest.approx([0.9, 1.0, 0.9, 1.0, 1.0])


def test_an_exclusion_holds_inside_a_loss_scale_and_for_every_optimizer_with_decay():
    for make in (optimizers.SGD, optimizers.Lion):
        optimizer = decaying(make)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        wrapped = optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0)
        assert decayed(wrapped, model()) == pytest.approx([0.9, 1.0, 0.9, 1.0, 1.0])


def test_an_exclusion_by_name_holds_on_two_replicas_and_in_two_groups(two_replicas):
    optimizer = decaying()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    with two_replicas.scope():
        net = model()
    expected = pytest.approx([0.9, 1.0, 0.9, 1.0, 1.0])
    assert decayed(optimizer, net, strategy=two_replicas) == expected
    groups = {"a": "a/*", "rest": ["b/*", "a"]}
    assert decayed(optimizer, model(), groups=groups, strategy="one_device") == expected


def test_a_loss_parameter_alone_is_excluded_from_weight_decay():
    assert decayed(decaying(), model()) == pytest.approx([0.9, 0.9, 0.9, 0.9, 1.0])


# A trained optimizer.

TRAINED = {
    "momentum and a schedule": lambda: optimizers.SGD(
        optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.01]), momentum=0.9
    ),
    "adam with averages": lambda: optimizers.Adam(0.05, use_ema=True),
    "nadam": lambda: optimizers.Nadam(0.05),
    "accumulation": lambda: optimizers.Adam(0.05, gradient_accumulation_steps=2),
    "a loss scale": lambda: optimizers.LossScaleOptimizer(
        optimizers.Adam(0.05), dynamic_growth_steps=4
    ),
}


def again(net, folder):
    """The same compiled model with its optimizer's state, by Keras's own saving."""
    net.save(folder / "net.keras")
    return keras.models.load_model(folder / "net.keras")


def trained(make, folder):
    """A model after three steps of `fit`, and the weights after three more."""
    net = model()
    by_keras(make, 3, net)
    return net, by_keras(None, 3, again(net, folder))


def averaged(trainer):
    """The weights after three steps, or their averages, with which Keras's `fit` ends."""
    fitted(trainer)
    program = trainer._run.program
    with program.optimizers.averages(program.trainables.variables):
        return trainer.model.get_weights()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", TRAINED)
def test_a_compiled_models_optimizer_goes_on_as_in_a_further_fit(name, tmp_path):
    net, expected = trained(TRAINED[name], tmp_path)
    iterations, slots = int(net.optimizer.iterations), len(net.optimizer.variables)
    trainer = Trainer.from_compiled(net)
    assert_close(averaged(trainer), expected)
    assert int(trainer.optimizer.iterations) == 6 // (2 if name == "accumulation" else 1)
    # the compiled model's own optimizer stays where it stood
    assert (int(net.optimizer.iterations), len(net.optimizer.variables)) == (iterations, slots)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", TRAINED)
def test_a_loaded_models_optimizer_goes_on_as_in_a_further_fit(name, tmp_path):
    net, expected = trained(TRAINED[name], tmp_path)
    assert_close(averaged(Trainer.from_compiled(again(net, tmp_path))), expected)


MORE = {
    "a loss parameter": lambda: dict(loss=parameter()),
    "two groups": lambda: dict(loss="mse", groups={"a": "a/*", "b": "b/*"}),
    "a loss parameter in a group": lambda: dict(
        loss=parameter(), groups={"net": "net/*", "parameter": "a"}
    ),
}


@pytest.mark.parametrize("more", MORE)
def test_a_trained_optimizer_goes_on_beside_what_it_did_not_train(more, tmp_path):
    net, expected = trained(TRAINED["momentum and a schedule"], tmp_path)
    trainer = Trainer(net, optimizer=net.optimizer, **MORE[more]())
    assert_close(fitted(trainer), expected)


@pytest.mark.parametrize("name", ["momentum and a schedule", "a loss scale"])
def test_a_trained_optimizer_goes_on_on_two_replicas(name, tmp_path, two_replicas):
    net, expected = trained(TRAINED[name], tmp_path)
    with two_replicas.scope():
        mirrored = again(net, tmp_path)
    assert_close(fitted(Trainer.from_compiled(mirrored, strategy=two_replicas)), expected)


def test_a_trained_optimizer_goes_on_with_a_part_that_was_frozen_since(tmp_path):
    net, _ = trained(TRAINED["momentum and a schedule"], tmp_path)
    by_hand = again(net, tmp_path)
    for made in (net, by_hand):
        made.layers[0].trainable = False
    expected = by_keras(None, 3, by_hand)
    assert_close(fitted(Trainer.from_compiled(net)), expected)


def test_an_optimizer_trained_on_another_model_is_refused():
    net = model()
    by_keras(lambda: optimizers.Adam(0.1), 1, net)
    with pytest.raises(ValueError, match="a Adam that was built for other variables"):
        fitted(Trainer(model(), optimizer=net.optimizer, loss="mse"))


def test_a_run_of_a_trained_optimizer_resumes_as_the_undisturbed_one(tmp_path):
    net, _ = trained(TRAINED["momentum and a schedule"], tmp_path)
    copies = [again(net, tmp_path) for _ in range(3)]
    whole = fitted(Trainer.from_compiled(copies[0], workdir=tmp_path / "whole"), 4)
    fitted(Trainer.from_compiled(copies[1], workdir=tmp_path / "cut"), 2)
    resumed = fitted(Trainer.from_compiled(copies[2], workdir=tmp_path / "cut"), 4)
    assert_close(resumed, whole, rtol=0)


# What is told and what is refused.


def test_a_schedule_without_a_configuration_stands_in_config_json_by_its_class(workdir):
    optimizer = optimizers.SGD(WarmUp(0.4), momentum=0.5)
    fitted(Trainer(model, optimizer=optimizer, loss="mse", workdir=workdir))
    config = json.loads((workdir / "config.json").read_text())["optimizer"]
    assert (config["class_name"], config["learning_rate"]) == ("SGD", "WarmUp")
    assert config["momentum"] == 0.5


def several():
    chosen = optimizers.OptimizerMap(optimizers.SGD(0.01), {".*b/kernel": optimizers.Adam(0.05)})
    return optimizers.MultiOptimizer(chosen)


MULTIPLE = {
    "as it is": several,
    "inside a loss scale": lambda: optimizers.LossScaleOptimizer(several()),
    "as a configuration": lambda: optimizers.serialize(several()),
    "by a function": lambda: optimizers.MultiOptimizer(lambda variable: optimizers.SGD(0.1)),
    "by group": lambda: {"all": several()},
}


@pytest.mark.parametrize("name", MULTIPLE)
def test_a_multi_optimizer_is_refused_with_the_spelling_of_groups(name):
    groups = {"all": "*"} if name == "by group" else None
    with pytest.raises(TypeError, match=r"MultiOptimizer.*groups=\{'.*optimizer=\{'"):
        Trainer(model, optimizer=MULTIPLE[name](), groups=groups, loss="mse")


def test_a_compiled_multi_optimizer_is_refused_too():
    net = model()
    net.compile(several(), "mse")
    with pytest.raises(TypeError, match="MultiOptimizer"):
        Trainer.from_compiled(net)


def test_a_loss_scale_factor_takes_the_sparse_gradient_of_an_embedding():
    def weights(**scaled):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Embedding(9, 2), keras.layers.Flatten(), keras.layers.Dense(1)]
        words = keras.Sequential([keras.Input((3,), dtype="int32"), *layers])
        trainer = Trainer(
            words, optimizer=optimizers.SGD(0.1, **scaled), loss="mse", strategy="one_device"
        )
        ids = np.random.default_rng(1).integers(0, 9, (32, 3))
        trainer.fit((ids, Y), steps=3, batch_size=16, verbose=False)
        return words.get_weights()

    for scaled, plain in zip(weights(loss_scale_factor=8.0), weights(), strict=True):
        np.testing.assert_allclose(scaled, plain, atol=1e-6)
