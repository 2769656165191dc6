"""Fused updates: the weights and slots that Keras's own update gives, in fewer operations."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from trainer import Trainer
from trainer.optimizers.fused import fuse

pytestmark = pytest.mark.one_in(4)

optimizers = keras.optimizers
SHAPES = [(3, 4), (5,), (1,), ()]
STEPS = 24
CLASSES = {
    "momentum": lambda **given: optimizers.SGD(0.1, momentum=0.9, **given),
    "nesterov": lambda **given: optimizers.SGD(0.1, momentum=0.9, nesterov=True, **given),
    "adam": lambda **given: optimizers.Adam(0.05, **given),
    "amsgrad": lambda **given: optimizers.Adam(0.05, amsgrad=True, **given),
    "adamw": lambda **given: optimizers.AdamW(0.05, **given),
    "rmsprop": lambda **given: optimizers.RMSprop(0.02, momentum=0.8, **given),
    "adadelta": lambda **given: optimizers.Adadelta(1.0, **given),
    "adamax": lambda **given: optimizers.Adamax(0.05, **given),
}
OPTIONS = {
    "nothing": {},
    "clipnorm": {"clipnorm": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.3},
    "weight_decay": {"weight_decay": 0.05},
    "averages": {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 5},
    "accumulation": {"gradient_accumulation_steps": 3},
    "loss_scale_factor": {"loss_scale_factor": 8.0},
    "schedule": {"learning_rate": optimizers.schedules.ExponentialDecay(0.1, 4, 0.5)},
}


def gradients(dtype="float32"):
    """One stack of gradients by variable, [steps, ...], of different sizes."""
    draw = np.random.default_rng(3)
    scale = np.exp(draw.normal(size=STEPS))
    return [np.einsum("s,s...->s...", scale, draw.normal(size=(STEPS, *shape))).astype(dtype)
            for shape in SHAPES]  # fmt: skip


def variables(dtype="float32"):
    draw = np.random.default_rng(4)
    return [keras.Variable(draw.normal(size=shape), dtype=dtype, name=f"w{i}")
            for i, shape in enumerate(SHAPES)]  # fmt: skip


def trained(optimizer, fused, *, dtype="float32", constraint=None, jit_compile=None, given=None):
    """The weights and the optimizer's variables after STEPS steps in one tf.function."""
    weights = variables(dtype)
    weights[0].constraint = constraint
    optimizer.build(weights)
    loop, found = compiled(optimizer, weights, fused, jit_compile)
    assert (found is not None) == fused
    loop(given or gradients(dtype), tf.range(STEPS))
    return [v.numpy() for v in (*weights, *optimizer.variables)]


def compiled(optimizer, weights, fused=True, jit_compile=None):
    found = fuse(optimizer, weights) if fused else None

    @tf.function(jit_compile=jit_compile, autograph=False)
    def loop(stacks, steps):
        def body(i):
            pairs = [(tf.gather(one, steps[i]), v) for one, v in zip(stacks, weights, strict=True)]
            (found or optimizer).apply_gradients(pairs)
            return [i + 1]

        tf.while_loop(lambda i: i < tf.size(steps), body, [0])

    return loop, found


def operations(function, *given):
    """How often each kind of operation occurs in a traced function and those it calls."""
    graph = function.get_concrete_function(*given).graph.as_graph_def()
    nodes = [*graph.node, *(node for one in graph.library.function for node in one.node_def)]
    kinds = [node.op for node in nodes]
    return {kind: kinds.count(kind) for kind in kinds}


def assert_same(mine, theirs, rtol=1e-6, atol=1e-7):
    for i, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol, err_msg=f"variable {i}")


def test_the_first_steps_are_those_worked_out_by_hand():
    def one_step(optimizer):
        weight = keras.Variable([1.0, -2.0])
        optimizer.build([weight])
        fuse(optimizer, [weight]).apply_gradients([(tf.constant([4.0, -0.5]), weight)])
        return weight.numpy()

    momentum = optimizers.SGD(0.1, momentum=0.9)
    np.testing.assert_allclose(one_step(momentum), [0.6, -1.95], rtol=1e-6)
    # 0.1 (g + 0.9 g): the momentum is taken once ahead
    nesterov = optimizers.SGD(0.1, momentum=0.9, nesterov=True)
    np.testing.assert_allclose(one_step(nesterov), [1 - 0.76, -2 + 0.095], rtol=1e-6)
    # the bias corrections leave g / |g|
    np.testing.assert_allclose(one_step(optimizers.Adam(0.1)), [0.9, -1.9], rtol=1e-5)
    np.testing.assert_allclose(one_step(optimizers.Adamax(0.1)), [0.9, -1.9], rtol=1e-5)
    # v = 0.1 g^2, so g / sqrt(v) is the square root of 10
    rmsprop = optimizers.RMSprop(0.1, momentum=0.5)
    np.testing.assert_allclose(
        one_step(rmsprop), [1 - 0.1 * 10**0.5, -2 + 0.1 * 10**0.5], rtol=1e-5
    )


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_gives_the_weights_and_slots_of_keras(name):
    make = CLASSES[name]
    # a mean of gradients of both signs is small beside them: hence the absolute part
    assert_same(trained(make(), True), trained(make(), False), atol=5e-7)


@pytest.mark.parametrize("name", [name for name in OPTIONS if name != "nothing"])
@pytest.mark.parametrize("kind", ["momentum", "adam"])
def test_each_option_gives_the_weights_and_slots_of_keras(kind, name):
    def make():
        config = CLASSES[kind]().get_config()
        option = OPTIONS[name]
        return type(CLASSES[kind]()).from_config({**config, **option})

    assert_same(trained(make(), True), trained(make(), False))


def test_constraints_hold_after_the_fused_step():
    found = [trained(optimizers.Adam(0.2), fused, constraint=keras.constraints.NonNeg())
             for fused in (True, False)]  # fmt: skip
    assert found[0][0].min() == 0.0
    assert_same(*found)


def test_a_loss_scale_is_lowered_and_grows_as_in_keras():
    given = gradients()
    given[1][2, 0], given[0][9, 0, 0] = np.inf, np.nan

    def make():
        return optimizers.LossScaleOptimizer(
            optimizers.Adam(0.05), initial_scale=64.0, dynamic_growth_steps=4
        )

    mine, theirs = (trained(make(), fused, given=given) for fused in (True, False))
    assert all(np.isfinite(one).all() for one in mine)
    assert_same(mine, theirs)


def test_float64_variables_keep_their_precision():
    mine, theirs = (
        trained(optimizers.Adam(0.05), fused, dtype="float64") for fused in (True, False)
    )
    assert_same(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", CLASSES)
def test_xla_compiles_each_kernel_to_the_same_weights(name):
    mine = trained(CLASSES[name](), True, jit_compile=True)
    # XLA contracts products and sums; Adadelta's first steps divide by sqrt(epsilon)
    assert_same(mine, trained(CLASSES[name](), False), rtol=1e-5, atol=1e-6)


rates = st.floats(1e-4, 0.5)
decays = st.floats(0.0, 0.9999)


@settings(deadline=None, phases=[Phase.generate], max_examples=12)
@given(rates, decays, decays, st.floats(1e-8, 1e-2), st.booleans())
def test_adam_is_that_of_keras_for_all_hyperparameters(rate, first, second, epsilon, amsgrad):
    def make():
        return optimizers.Adam(rate, beta_1=first, beta_2=second, epsilon=epsilon, amsgrad=amsgrad)

    assert_same(trained(make(), True), trained(make(), False))


@settings(deadline=None, phases=[Phase.generate], max_examples=8)
@given(rates, st.floats(0.01, 1.0), st.booleans())
def test_momentum_is_that_of_keras_for_all_hyperparameters(rate, momentum, nesterov):
    def make():
        return optimizers.SGD(rate, momentum=momentum, nesterov=nesterov)

    assert_same(trained(make(), True), trained(make(), False), rtol=1e-5, atol=1e-5)


@settings(deadline=None, phases=[Phase.generate], max_examples=8)
@given(rates, st.floats(0.5, 0.99), st.floats(0.01, 0.95), st.floats(1e-7, 1e-3))
def test_rmsprop_is_fused_where_it_is_that_of_keras(rate, rho, momentum, epsilon):
    def make():
        return optimizers.RMSprop(rate, rho=rho, momentum=momentum, epsilon=epsilon)

    optimizer, weights = make(), variables()
    optimizer.build(weights)
    if fuse(optimizer, weights) is not None:
        assert_same(trained(make(), True), trained(make(), False), rtol=2e-6, atol=1e-5 * rate)


class Halved(optimizers.Adam):
    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate / 2)


LEFT = {
    "subclass": lambda: Halved(0.1),
    "plain sgd": lambda: optimizers.SGD(0.1),
    "plain rmsprop": lambda: optimizers.RMSprop(0.1),
    "centered": lambda: optimizers.RMSprop(0.1, momentum=0.9, centered=True),
    "slow rmsprop": lambda: optimizers.RMSprop(0.1, momentum=0.9, rho=0.999),
    "fast rmsprop": lambda: optimizers.RMSprop(0.1, momentum=0.9, rho=0.1),
    "slow adadelta": lambda: optimizers.Adadelta(1.0, rho=0.9995),
    "adagrad": lambda: optimizers.Adagrad(0.1),
    "nadam": lambda: optimizers.Nadam(0.1),
    "ftrl": lambda: optimizers.Ftrl(0.1),
    "lion": lambda: optimizers.Lion(0.1),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_no_kernel_equals_is_left_to_keras(name):
    optimizer, weights = LEFT[name](), variables()
    optimizer.build(weights)
    assert fuse(optimizer, weights) is None


def test_an_update_step_of_the_users_own_is_left_in_place():
    optimizer, weights = optimizers.SGD(0.1, momentum=0.9), variables()
    optimizer.build(weights)
    optimizer.update_step = lambda gradient, variable, learning_rate: variable.assign_add(gradient)
    assert fuse(optimizer, weights) is None


def test_sparse_and_half_precision_gradients_take_the_step_of_keras():
    sparse = tf.IndexedSlices(tf.constant([[1.0, 1.0], [2.0, 2.0]]), tf.constant([0, 2]), (3, 2))

    def train(fused):
        weights = [keras.Variable(np.ones((3, 2))), keras.Variable(np.ones(2), dtype="float16")]
        optimizer = optimizers.SGD(0.5, momentum=0.9)
        optimizer.build(weights)
        found = fuse(optimizer, weights)

        @tf.function
        def step():
            pairs = list(zip((sparse, tf.ones(2, "float16")), weights, strict=True))
            (found if fused else optimizer).apply_gradients(pairs)

        assert "ResourceApplyKerasMomentum" not in operations(step)
        step()
        return [weight.numpy() for weight in weights]

    mine, theirs = train(True), train(False)
    np.testing.assert_allclose(mine[0], [[0.5, 0.5], [1, 1], [0, 0]])
    assert_same(mine, theirs)


def test_the_scalars_are_computed_once_and_each_variable_has_one_kernel():
    optimizer, weights = optimizers.Adam(0.1), variables()
    optimizer.build(weights)
    loop, _ = compiled(optimizer, weights)
    found = operations(loop, gradients(), tf.range(2))
    assert found["ResourceApplyAdagradV2"] == len(weights)
    assert found["Pow"] == 2
    plain, _ = compiled(optimizer, weights, fused=False)
    before = operations(plain, gradients(), tf.range(2))
    assert before["Pow"] == 2 * len(weights)
    assert sum(before.values()) - sum(found.values()) >= 15 * len(weights)


@pytest.mark.parametrize(
    ("name", "present", "absent"),
    [
        ("adam", "ResourceApplyAdagradV2", "AssignSubVariableOp"),
        ("momentum", "ResourceApplyKerasMomentum", "AssignSubVariableOp"),
        ("subclass", "AssignSubVariableOp", "ResourceApplyAdagradV2"),
    ],
)
def test_the_compiled_step_of_a_trainer_holds_the_kernel(name, present, absent):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    trainer = Trainer(
        model, optimizer={**CLASSES, **LEFT}[name](), loss="mse", strategy="one_device"
    )
    data = tf.data.Dataset.from_tensors((np.ones((4, 3), "float32"), np.ones((4, 2), "float32")))
    trainer.fit(data, steps=1, verbose=False)
    steps = trainer._run.programs.steps
    graphs = [step.function.graph.as_graph_def() for step in steps]
    nodes = [node.op for graph in graphs for node in graph.node]
    nodes += [n.op for graph in graphs for one in graph.library.function for n in one.node_def]
    assert nodes.count(present) == 2
    assert absent not in nodes


def test_afterwards_the_optimizer_is_keras_own_again():
    optimizer, weights = optimizers.Adam(0.05), variables()
    optimizer.build(weights)
    config, names = optimizer.get_config(), [v.path for v in optimizer.variables]
    loop, _ = compiled(optimizer, weights)
    stacks = gradients()
    loop(stacks, tf.range(2))
    assert "update_step" not in vars(optimizer)
    assert optimizer.get_config() == config
    assert [v.path for v in optimizer.variables] == names
    optimizer.apply([tf.constant(one[2]) for one in stacks], weights)  # eagerly, by itself

    expected, other = optimizers.Adam(0.05), variables()
    expected.build(other)
    for i in range(3):
        expected.apply([tf.constant(one[i]) for one in stacks], other)
    assert_same([v.numpy() for v in weights], [v.numpy() for v in other])


def test_an_error_inside_the_update_leaves_no_trace():
    optimizer, weights = optimizers.SGD(0.1, momentum=0.9), variables()
    optimizer.build(weights)
    attributes = dict(vars(optimizer))
    with pytest.raises(ValueError):
        fuse(optimizer, weights).apply_gradients([(tf.ones(3), keras.Variable(np.ones(3)))])
    assert "update_step" not in vars(optimizer)
    assert vars(optimizer) == attributes


def test_a_second_trace_and_an_eager_step_use_no_tensors_of_the_first():
    optimizer, weights = optimizers.Adam(0.05), variables()
    optimizer.build(weights)
    found = fuse(optimizer, weights)
    stacks = gradients()

    def step(i):
        gradients = [tf.constant(one)[i] for one in stacks]
        found.apply_gradients(list(zip(gradients, weights, strict=True)))

    for i, run in enumerate((tf.function(step), tf.function(step), step)):
        run(tf.constant(i))
    expected, other = optimizers.Adam(0.05), variables()
    expected.build(other)
    for i in range(3):
        expected.apply([tf.constant(one[i]) for one in stacks], other)
    assert_same([v.numpy() for v in weights], [v.numpy() for v in other])


def test_a_state_of_keras_goes_on_in_fused_steps():
    half = STEPS // 2
    stacks = gradients()
    plain, weights = optimizers.Adam(0.05), variables()
    plain.build(weights)
    loop, _ = compiled(plain, weights, fused=False)
    loop(stacks, tf.range(half))
    other, copies = optimizers.Adam(0.05), variables()
    other.build(copies)
    kept = [*weights, *plain.variables]
    for target, source in zip((*copies, *other.variables), kept, strict=True):
        target.assign(source)
    fused, _ = compiled(other, copies)
    fused(stacks, tf.range(half, STEPS))
    loop(stacks, tf.range(half, STEPS))
    assert_same([v.numpy() for v in copies], [v.numpy() for v in weights])


@pytest.mark.parametrize("name", ["momentum", "adam", "adamax"])
def test_each_replicas_copy_is_updated_alike(name, two_replicas):
    with two_replicas.scope():
        weights, optimizer = variables(), CLASSES[name]()
        optimizer.build(weights)
    found = fuse(optimizer, weights, two_replicas)
    stacks = gradients()

    @tf.function(autograph=False)
    def step(i):
        def replica():
            return [tf.gather(one, i) / 2 for one in stacks]

        reduced = two_replicas.extended.batch_reduce_to(
            "SUM", [(g, v.value) for g, v in zip(two_replicas.run(replica), weights, strict=True)]
        )
        found.apply_gradients(list(zip(reduced, weights, strict=True)))

    for i in tf.range(STEPS):
        step(i)
    parts = [two_replicas.experimental_local_results(v.value) for v in weights]
    kept = [[part[device].numpy() for part in parts] for device in (0, 1)]
    expected = trained(CLASSES[name](), False)[: len(weights)]
    assert_same(kept[0], expected)
    for first, second in zip(*kept, strict=True):
        np.testing.assert_array_equal(first, second)
