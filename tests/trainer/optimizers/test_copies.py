"""Copies of optimizers: what the original does, its copy does in the scope where it was made."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.optimizers.attributes import built_for
from trainer.optimizers.copies import copy_optimizer, made_in_scope
from trainer.optimizers.trained_state import carry_state, check_built_for

pytestmark = pytest.mark.one_in(4)

optimizers = keras.optimizers
GRADIENTS = np.random.default_rng(1).normal(size=(8, 2, 3)).astype("float32")


class Faster(optimizers.Adam):
    """What Keras's configuration cannot say: an argument, a method as attribute, a counter."""

    def __init__(self, factor=1.0, **arguments):
        super().__init__(**arguments)
        self.factor = factor
        self.rule = self.doubled
        self.table = {"twice": [2.0, self.iterations]}
        self.calls = self.add_variable((), dtype="int64", name="calls")
        self.loose = keras.Variable(3.0, trainable=False, name="loose")

    def doubled(self, rate):
        return 2 * rate * self.factor

    def update_step(self, gradient, variable, learning_rate):
        self.calls.assign_add(1)
        super().update_step(gradient, variable, self.rule(learning_rate))


class WarmUp(optimizers.schedules.LearningRateSchedule):
    def __init__(self, peak):
        super().__init__()
        self.peak = peak

    def __call__(self, step):
        return self.peak * tf.minimum(1.0, (tf.cast(step, tf.float32) + 1.0) / 4.0)


def weights(*names):
    return [keras.Variable(np.ones((2, 3)), dtype="float32", name=name) for name in names or "ab"]


def steps(optimizer, variables, first, last):
    for gradient in GRADIENTS[first:last]:
        optimizer.apply([tf.constant(gradient)] * len(variables), variables)


def values(variables):
    return [np.asarray(variable) for variable in variables]


def assert_equal(mine, theirs):
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_subclass_keeps_the_argument_that_no_configuration_has():
    copy = copy_optimizer(Faster(factor=5.0, learning_rate=0.01, beta_1=0.5))
    assert type(copy) is Faster
    assert (copy.factor, copy.beta_1, copy.table["twice"][0]) == (5.0, 0.5, 2.0)


def test_a_copy_shares_no_variable_with_the_original():
    original = Faster(learning_rate=0.01)
    original.calls.assign(7)
    copy = copy_optimizer(original)
    assert [v.path for v in copy.variables] == [v.path for v in original.variables]
    assert not {id(v) for v in copy.variables} & {id(v) for v in original.variables}
    assert (int(copy.calls), float(copy.loose)) == (7, 3.0)
    # one variable under two names stays one
    assert copy.table["twice"][1] is copy.variables[0]
    original.calls.assign(9)
    assert int(copy.calls) == 7


def test_a_bound_method_is_that_of_the_copy():
    original = Faster(factor=5.0, learning_rate=0.01)
    copy = copy_optimizer(original)
    original.factor = 1.0
    assert copy.rule(1.0) == 10.0


SETTINGS = {
    "clipnorm": {"clipnorm": 0.5},
    "global clipnorm": {"global_clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.5},
    "weight decay": {"weight_decay": 0.1},
    "averages": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3},
    "accumulation": {"gradient_accumulation_steps": 2},
    "loss scale": {"loss_scale_factor": 8.0},
    "a schedule without get_config": {"learning_rate": WarmUp(0.4)},
    "a schedule": {"learning_rate": optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)},
    "a lambda": {"learning_rate": lambda: 0.3},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_copy_updates_as_the_original(name):
    original = optimizers.Adam(**{"learning_rate": 0.1, **SETTINGS[name]})
    copy = copy_optimizer(original)
    mine, theirs = weights(), weights()
    steps(copy, mine, 0, 5)
    steps(original, theirs, 0, 5)
    assert_equal(values([*mine, *copy.variables]), values([*theirs, *original.variables]))


def test_a_setting_changed_after_the_construction_is_copied():
    original = optimizers.SGD(0.1)
    original.learning_rate = 0.4
    original.clipnorm = 2.0
    copy = copy_optimizer(original)
    assert float(copy.learning_rate) == pytest.approx(0.4)
    assert copy.clipnorm == 2.0
    original.learning_rate = WarmUp(1.0)
    copy = copy_optimizer(original)
    assert float(copy.learning_rate) == 0.25
    assert len(copy.variables) == 1  # the learning rate is no variable any more


@pytest.mark.parametrize("by", ["names", "variables", "both"])
def test_what_is_excluded_from_weight_decay_stays_excluded(by):
    a, b, c = weights("a", "b", "c")
    original = optimizers.AdamW(0.1, weight_decay=1.0)
    original.exclude_from_weight_decay(
        var_names=["b"] if by != "variables" else None, var_list=[c] if by != "names" else None
    )
    copy = copy_optimizer(original)
    copy.apply([tf.zeros((2, 3))] * 3, [a, b, c])
    assert float(a[0, 0]) == pytest.approx(0.9)
    assert float(b[0, 0]) == (1.0 if by != "variables" else pytest.approx(0.9))
    assert float(c[0, 0]) == (1.0 if by != "names" else pytest.approx(0.9))


def test_a_loss_scale_and_the_optimizer_inside_it_are_copied():
    original = optimizers.LossScaleOptimizer(
        Faster(factor=4.0, learning_rate=WarmUp(0.1)), initial_scale=64.0, dynamic_growth_steps=7
    )
    copy = copy_optimizer(original)
    assert (copy.initial_scale, copy.dynamic_growth_steps) == (64.0, 7)
    assert copy.inner_optimizer is not original.inner_optimizer
    assert copy.inner_optimizer.factor == 4.0
    mine, theirs = weights(), weights()
    steps(copy, mine, 0, 3)
    steps(original, theirs, 0, 3)
    assert_equal(values([*mine, *copy.variables]), values([*theirs, *original.variables]))


class Both(optimizers.Optimizer):
    """A wrapper that holds optimizers in a list."""

    def __init__(self, parts):
        super().__init__(learning_rate=0.0)
        self.parts = parts

    def build(self, variables):
        super().build(variables)
        for part in self.parts:
            part.build(variables)

    def update_step(self, gradient, variable, learning_rate):
        for part in self.parts:
            part.update_step(gradient, variable, part.learning_rate)


def test_optimizers_in_a_list_are_copied():
    original = Both([optimizers.SGD(0.1, momentum=0.5), Faster(factor=3.0, learning_rate=0.01)])
    copy = copy_optimizer(original)
    assert [type(part) for part in copy.parts] == [optimizers.SGD, Faster]
    assert copy.parts[0] is not original.parts[0]
    mine, theirs = weights(), weights()
    steps(copy, mine, 0, 3)
    steps(original, theirs, 0, 3)
    assert_equal(values(mine), values(theirs))


TRAINED = {
    "sgd": lambda: optimizers.SGD(0.1),
    "momentum": lambda: optimizers.SGD(WarmUp(0.1), momentum=0.9),
    "adam": lambda: optimizers.Adam(0.1, amsgrad=True, use_ema=True),
    "nadam": lambda: optimizers.Nadam(0.1),  # keeps a product in a variable of its own
    "adafactor": lambda: optimizers.Adafactor(0.1),  # rows and columns, in other shapes
    "ftrl": lambda: optimizers.Ftrl(0.1),
    "lion": lambda: optimizers.Lion(0.1),
    "muon": lambda: optimizers.Muon(0.1),
    "accumulating": lambda: optimizers.RMSprop(0.1, gradient_accumulation_steps=2),
    "scaled": lambda: optimizers.LossScaleOptimizer(optimizers.Adam(0.1), dynamic_growth_steps=2),
    "subclass": lambda: Faster(factor=0.5, learning_rate=0.1),
    "list": lambda: Both([optimizers.SGD(0.1, momentum=0.5), optimizers.Adam(0.01)]),
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_optimizer_goes_on_in_its_copy(name):
    original, variables = TRAINED[name](), weights()
    steps(original, variables, 0, 3)
    assert [v.name for v in built_for(original)] == ["a", "b"]
    copy = copy_optimizer(original)
    assert not copy.built
    copy.build(variables)
    carry_state(original, copy, variables)
    state = sorted(np.ravel(v).tolist() for v in copy.variables)
    assert state == sorted(np.ravel(v).tolist() for v in original.variables)
    before = values(variables)
    steps(copy, variables, 3, 6)
    mine = values(variables)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    steps(original, variables, 3, 6)
    assert_equal(mine, values(variables))


def test_each_variable_keeps_its_slots_in_another_order_and_among_others():
    a, b = weights()
    original = optimizers.SGD(0.1, momentum=0.9)
    original.apply([tf.ones((2, 3)), 2 * tf.ones((2, 3))], [a, b])
    c = weights("c")[0]
    copy = copy_optimizer(original)
    copy.build([c, b])
    carry_state(original, copy, [c, b])
    slots = {v.name: float(np.ravel(v)[0]) for v in copy.variables}
    assert slots["c_momentum"] == 0.0
    assert slots["b_momentum"] == pytest.approx(-0.2)
    assert int(copy.iterations) == 1


def test_the_average_of_a_variable_that_joins_begins_with_its_value():
    a, b = weights()
    original = optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    original.apply([tf.ones((2, 3))], [a])
    copy = copy_optimizer(original)
    copy.build([b, a])
    carry_state(original, copy, [b, a])
    averages = [float(np.ravel(v)[0]) for v in copy.variables if v.name.endswith("_average")]
    assert averages == pytest.approx([1.0, 0.9])


def test_two_variables_of_one_name_keep_their_own_slots():
    first, second = weights("w", "w")
    original = optimizers.SGD(0.1, momentum=0.9)
    original.apply([tf.ones((2, 3)), 2 * tf.ones((2, 3))], [first, second])
    copy = copy_optimizer(original)
    copy.build([second, first])
    carry_state(original, copy, [second, first])
    assert [float(np.ravel(v)[0]) for v in copy.variables[2:]] == pytest.approx([-0.2, -0.1])


def test_an_optimizer_that_was_built_for_other_variables_is_refused():
    original = optimizers.Adam(0.1)
    steps(original, weights(), 0, 1)
    check_built_for(original, [*weights(), *built_for(original)])
    with pytest.raises(ValueError, match="a Adam that was built for other variables"):
        check_built_for(original, weights())


class Ragged(optimizers.SGD):
    """Keeps a list that is neither one slot for each variable nor always as long."""

    def build(self, variables):
        super().build(variables)
        self.parts = [self.add_variable((), name=f"part{i}") for i in range(3 * len(variables))]


def test_a_state_that_does_not_fit_is_refused_by_name():
    a, b = weights()
    original = Ragged(0.1)
    original.build([a, b])
    copy = copy_optimizer(original)
    copy.build([a])
    with pytest.raises(ValueError, match="a trained Ragged, and its parts does not fit"):
        carry_state(original, copy, [a])


def test_a_function_that_reads_the_optimizer_itself_is_refused_by_name():
    original = optimizers.SGD(learning_rate=lambda: 0.1 / (1.0 + float(original.iterations)))
    with pytest.raises(ValueError, match="a SGD whose learning_rate is a function that reads the"):
        copy_optimizer(original)


class Gain:
    def __init__(self):
        self.value = keras.Variable(2.0)


def test_an_object_with_variables_of_its_own_is_refused_by_name_on_replicas(two_replicas):
    original = optimizers.SGD(0.1)
    original.gain = Gain()
    assert copy_optimizer(original).gain is original.gain
    with (
        two_replicas.scope(),
        pytest.raises(ValueError, match="SGD whose gain is a Gain with variables of its own"),
    ):
        copy_optimizer(original)


def test_a_copy_in_a_scope_updates_mirrored_variables(two_replicas):
    original, variables = Faster(factor=5.0, learning_rate=WarmUp(0.1)), weights()
    assert made_in_scope(original)
    with two_replicas.scope():
        assert not made_in_scope(original)
        copy, mirrored = copy_optimizer(original), weights()
        assert made_in_scope(copy)
        copy.build(mirrored)
    assert not made_in_scope(copy)
    steps(copy, mirrored, 0, 3)
    steps(original, variables, 0, 3)
    assert_equal(values(mirrored), values(variables))
