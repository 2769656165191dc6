"""Physics-informed terms: derivatives, residuals by hand, unknown coefficients, the Trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import PDEResidual, Step, derivative
from trainer import Trainer

POINTS = np.random.default_rng(0).uniform(0.2, 1.5, (7, 2))


def step_of(model, x=None, step=0):
    x = tf.zeros([3, 2]) if x is None else x
    return Step(x=x, model=model, step=step, training=True)


def test_derivatives_of_a_polynomial():
    t, x = POINTS.T
    points = tf.constant(POINTS)

    def u(p):  # t^2 x^3 and t x
        return tf.stack([p[:, 0] ** 2 * p[:, 1] ** 3, p[:, 0] * p[:, 1]], axis=-1)

    expected = {
        (): [t**2 * x**3, t * x],
        (0,): [2 * t * x**3, x],
        (-1,): [3 * t**2 * x**2, t],
        (0, 1): [6 * t * x**2, np.ones(7)],
        (1, 0): [6 * t * x**2, np.ones(7)],
        (1, 1): [6 * t**2 * x, np.zeros(7)],
        (1, 1, 1, 0): [12 * t, np.zeros(7)],
    }
    for axes, columns in expected.items():
        np.testing.assert_allclose(derivative(u, points, *axes), np.stack(columns, 1), rtol=1e-10)
        np.testing.assert_allclose(
            derivative(lambda p: u(p)[:, 0], points, *axes), columns[0], rtol=1e-10
        )


def test_derivatives_of_a_network_are_those_of_finite_differences():
    keras.utils.set_random_seed(1)
    net = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(9, "tanh"), keras.layers.Dense(2)]
    )
    w = [v.astype("float64") for v in net.get_weights()]

    def u(p):
        return np.tanh(p @ w[0] + w[1]) @ w[2] + w[3]

    e = np.array([[0.0, 1e-4]])
    points = tf.constant(POINTS, tf.float32)
    slope = (u(POINTS + e) - u(POINTS - e)) / 2e-4
    bend = (u(POINTS + e) - 2 * u(POINTS) + u(POINTS - e)) / 1e-8
    np.testing.assert_allclose(derivative(net, points, 1), slope, atol=1e-5)
    np.testing.assert_allclose(derivative(net, points, 1, 1), bend, atol=1e-5)


def test_the_weights_gradient_of_a_second_derivative_is_that_of_finite_differences():
    w = tf.constant([[0.4, -0.7, 1.1]], tf.float64)

    def loss(w):
        bend = derivative(lambda p: tf.reduce_sum(tf.tanh(p[:, :1] @ w), -1), points, 0, 0)
        return tf.reduce_mean(tf.square(bend))

    points = tf.constant(POINTS)
    (found,), (expected,) = tf.test.compute_gradient(loss, [w], delta=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_residual_by_hand():
    # u = e^(-2 t) does not decay at the rate 3: the residual is u
    def decay(model, x, parameters):
        return derivative(model, x, 0) + parameters["k"] * model(x)

    term = PDEResidual(decay, POINTS[:, :1], parameters={"k": 3.0})
    found = term.call(step_of(lambda t: tf.exp(-2.0 * t)))
    assert float(found.value()) == pytest.approx(np.mean(np.exp(-4 * POINTS[:, 0])), rel=1e-5)
    exact = PDEResidual(decay, POINTS[:, :1], parameters={"k": 2.0})
    assert float(exact.call(step_of(lambda t: tf.exp(-2.0 * t))).value()) < 1e-12


def test_equations_are_summed_or_named():
    def residual(model, x, parameters):
        return tf.stack([x[:, 0], 2.0 * x[:, 1]], axis=-1)

    first, second = np.mean(POINTS[:, 0] ** 2), 4 * np.mean(POINTS[:, 1] ** 2)
    found = PDEResidual(residual, POINTS).call(step_of(None))
    assert float(found.value()) == pytest.approx(first + second, rel=1e-6)
    named = PDEResidual(
        lambda model, x, parameters: {"a": x[:, 0], "b": 2.0 * x[:, 1:]}, POINTS
    ).call(step_of(None))
    assert float(named["a"].value()) == pytest.approx(first, rel=1e-6)
    assert float(named["b"].value()) == pytest.approx(second, rel=1e-6)


def test_points_may_change_with_the_step_or_be_the_inputs():
    def residual(model, x, parameters):
        return x[:, 0]

    def draw(step):
        return tf.random.stateless_uniform([5, 1], [0, step])

    found = PDEResidual(residual, draw).call(step_of(None, step=3)).value()
    expected = tf.reduce_mean(tf.square(tf.random.stateless_uniform([5, 1], [0, 3])))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    of_inputs = PDEResidual(residual, None).call(step_of(None, tf.constant([[1.0], [3.0]])))
    assert float(of_inputs.numerator) == 10.0 and float(of_inputs.denominator) == 2.0


def decay(model, t, parameters):
    return derivative(model, t, 0) + parameters["k"] * model(t)


keras.saving.register_keras_serializable(package="test_pde")(decay)


def build():
    def init(seed):
        return keras.initializers.GlorotNormal(seed=seed)

    return keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(16, "tanh", kernel_initializer=init(1), name="a"),
            keras.layers.Dense(16, "tanh", kernel_initializer=init(2), name="b"),
            keras.layers.Dense(1, kernel_initializer=init(3), name="u"),
        ],
        name="net",
    )


def train(strategy="one_device", steps=20, term=None, batch=12, **arguments):
    t = np.linspace(0, 2, 25, dtype="float32")[:, None]
    term = term or PDEResidual(decay, np.linspace(0, 2, 33)[:, None], parameters={"k": 0.5})
    trainer = Trainer(
        build,
        loss="mse",
        terms=[term],
        strategy=strategy,
        **{"optimizer": keras.optimizers.SGD(0.01), **arguments},
    )
    data = (t, np.exp(-1.5 * t))
    every = 1 if steps < 50 else steps
    rows = trainer.fit(data, steps=steps, batch_size=batch, log_every=every, verbose=False).rows
    return trainer, rows


def test_an_unknown_decay_rate_is_found():
    adam = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 3000))
    trainer, _ = train(steps=3000, optimizer=adam, batch=25, jit_compile=True)
    assert list(trainer.loss_parameters) == ["pde_residual/k"]
    assert float(trainer.loss_parameters["pde_residual/k"]) == pytest.approx(1.5, rel=0.01)


def test_an_unknown_diffusivity_is_found():
    # u = e^(-a pi^2 t) sin(pi x) solves u_t = a u_xx
    def heat(model, p, parameters):
        return derivative(model, p, 0) - parameters["a"] * derivative(model, p, 1, 1)

    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (200, 2)).astype("float32")
    u = np.exp(-0.2 * np.pi**2 * points[:, :1]) * np.sin(np.pi * points[:, 1:])

    def model():
        dense = keras.layers.Dense
        layers = [dense(24, "tanh"), dense(24, "tanh"), dense(1)]
        return keras.Sequential([keras.Input((2,)), *layers])

    diffusivity = losses.Parameter("a", 1.0, constraint="non_neg")
    trainer = Trainer(
        model,
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.01, 3500)),
        loss="mse",
        loss_weights=10.0,
        terms=[PDEResidual(heat, points, parameters={"a": diffusivity})],
        strategy="one_device",
        jit_compile=True,
    )
    trainer.fit((points, u), steps=3500, batch_size=200, log_every=3500, verbose=False)
    assert float(diffusivity) == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("points", ["fixed", "the inputs"])
def test_two_replicas_give_the_ledger_and_weights_of_one(points, two_replicas):
    def run(strategy):
        given = None if points == "the inputs" else np.linspace(0, 2, 33)[:, None]
        return train(strategy, term=PDEResidual(decay, given, parameters={"k": 0.5}))

    (one, rows), (two, other_rows) = run("one_device"), run(two_replicas)
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in ("total", "raw/pde_residual", "loss_parameters/pde_residual/k"):
            # u' + k u has the absolute error of its two parts
            assert mine[key] == pytest.approx(theirs[key], rel=1e-6, abs=2e-8), key
    for mine, theirs in zip(two.model.weights, one.model.weights, strict=True):
        np.testing.assert_allclose(
            mine.value.read_value(), theirs.value.read_value(), rtol=5e-6, atol=5e-6
        )


def test_the_compiler_gives_the_same_and_evaluation_too():
    (trainer, rows), (_, compiled) = train(), train(jit_compile=True)
    assert compiled[-1]["total"] == pytest.approx(rows[-1]["total"], rel=1e-4)
    t = np.zeros((5, 1), "float32")
    found = trainer.evaluate((t, t), batch_size=3)["raw/pde_residual"]
    model, k = trainer.model, float(trainer.loss_parameters["pde_residual/k"])
    points = tf.constant(np.linspace(0, 2, 33)[:, None], tf.float32)
    expected = tf.reduce_mean(tf.square(decay(model, points, {"k": k})))
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_it_is_saved_by_its_arguments():
    term = PDEResidual(decay, POINTS[:, :1], parameters={"k": [1.0, 2.0]}, weight=3.0, name="ode")
    assert set(term.get_config()) == {
        "residual",
        "points",
        "parameters",
        "weight",
        "name",
        "trains",
    }
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(term))
    assert again.residual is decay and again.name == "ode" and again.weight == 3.0
    np.testing.assert_allclose(again.points, POINTS[:, :1])
    np.testing.assert_allclose(again.parameters["k"], [1.0, 2.0])
    assert [v.path for v in again.variables] == ["ode/k"]


def test_what_is_no_residual_or_points_is_an_error():
    with pytest.raises(TypeError, match=r"residual='heat'\): give a function \(model, x, param"):
        PDEResidual("heat", POINTS)
    with pytest.raises(ValueError, match=r"array of shape \(7,\). Give \[points, coordinates\]"):
        PDEResidual(decay, POINTS[:, 0])
    with pytest.raises(ValueError, match="not finite"):
        PDEResidual(decay, [[np.inf]])
    with pytest.raises(ValueError, match=r"shape \(\) for 7 points. Return one value for each"):
        PDEResidual(lambda model, x, p: tf.reduce_sum(x), POINTS).call(step_of(None))
    with pytest.raises(ValueError, match="by coordinate 2 of points that have 2: give one of 0 to"):
        derivative(lambda x: x, tf.constant(POINTS), 2)
