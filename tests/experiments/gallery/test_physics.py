"""Burgers and the inverse problems: their truth by other means, and a short run of each."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import solve_ivp

from experiments.configs import burgers as burgers_file
from experiments.configs import inverse_burgers as inverse_burgers_file
from experiments.configs import inverse_heat as inverse_heat_file
from experiments.gallery import burgers, inverse_burgers, inverse_heat


@pytest.fixture(autouse=True)
def float64():
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # another test may have set one for good
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


def test_cole_and_hopfs_solution_is_that_of_the_method_of_lines():
    """Finite volumes of second order on 1,600 cells, before the shock is too steep for them."""
    cells = 1600
    x = (np.arange(cells) + 0.5) / cells * 2 - 1
    h = 2 / cells

    def slope(t, u):
        wide = np.concatenate([[-u[0]], u, [-u[-1]]])
        flux = (wide[1:] ** 2 + wide[1:] * wide[:-1] + wide[:-1] ** 2) / 6
        flux -= burgers.VISCOSITY * np.diff(wide) / h
        return -np.diff(flux) / h

    found = solve_ivp(slope, (0, 0.3), -np.sin(np.pi * x), method="RK23", rtol=1e-7, atol=1e-9)
    expected = burgers.solution(np.full(cells, 0.3), x)
    np.testing.assert_allclose(found.y[:, -1], expected, atol=2e-4)


def test_cole_and_hopfs_solution_is_settled_by_its_nodes():
    points, u = burgers.test_grid()
    np.testing.assert_allclose(burgers.solution(*points.T, nodes=200), u, atol=1e-9)


def test_the_equation_is_that_of_the_solution():
    """The residual of a model that is the heat equation's solution is 0; of another it is not."""

    def truth(points):
        t, x = points[:, :1], points[:, 1:]
        parts = [(1, 1.0), (3, 0.5)]
        k = inverse_heat.DIFFUSIVITY
        return sum(
            size * tf.exp(-k * (n * np.pi) ** 2 * t) * tf.sin(n * np.pi * x) for n, size in parts
        )

    points = tf.constant(inverse_heat.DOMAIN.interior(50))
    np.testing.assert_allclose(truth(points), inverse_heat.solution(points.numpy()), rtol=1e-12)
    for log_diffusivity, most in ((np.log(0.1), 1e-10), (0.0, np.inf)):
        coefficients = {"log_diffusivity": tf.constant(log_diffusivity, tf.float64)}
        residual = inverse_heat.residual(truth, points, coefficients)
        assert np.abs(residual).max() < most or (most == np.inf and np.abs(residual).max() > 1)


def test_the_derivatives_of_burgers_are_those_of_a_polynomial():
    points = tf.constant([[0.5, 2.0], [0.25, -1.0]], tf.float64)
    found = burgers.derivatives(lambda p: p[:, :1] * p[:, 1:] ** 3, points)
    t, x = points.numpy().T
    for value, expected in zip(found, (t * x**3, x**3, 3 * t * x**2, 6 * t * x), strict=True):
        np.testing.assert_allclose(value, expected)


def test_a_short_run_of_burgers_goes_through_both_phases_and_is_checked():
    config = burgers_file.get_config()
    config.update({"steps": 30, "adam_steps": 10, "batch_size": 60, "width": 6, "depth": 1})
    one = burgers.experiment(config, strategy="one_device", workdir=None)
    rows = one.trainer.fit(
        one.train_data, **{**one.fit, "log_every": 10, "validate_every": None}, verbose=False
    ).rows
    assert [row["phase"] for row in rows] == ["adam", "second_order", "second_order"]
    assert rows[-1]["total"] < rows[0]["total"]
    points, u = burgers.test_grid()
    found = one.trainer.predict((points,))[:, 0]
    check = one.check(one.trainer)["relative L2 error"]
    assert check.value == pytest.approx(np.sqrt(np.sum((found - u) ** 2) / np.sum(u**2)))
    assert not check.reached
    at_walls = one.trainer.predict((burgers.DOMAIN.boundary(8),))
    np.testing.assert_allclose(at_walls, 0, atol=1e-12)
    assert len(one.picture(one.trainer).axes) == 4


@pytest.mark.parametrize(
    ("module", "file", "variant"),
    [
        (inverse_heat, inverse_heat_file, "second_order"),
        (inverse_heat, inverse_heat_file, "relobralo"),
        (inverse_burgers, inverse_burgers_file, "second_order"),
    ],
    ids=["heat", "balanced", "burgers"],
)
def test_a_short_run_of_an_inverse_problem_moves_its_coefficients(module, file, variant):
    config = file.get_config()
    config.update({"steps": 12, "adam_steps": 6, "width": 5, "depth": 1, "variant": variant})
    config.points.update({name: 12 for name in config.points})
    one = module.experiment(config, strategy="one_device", workdir=None)
    one.trainer.fit(one.train_data, **{**one.fit, "validate_every": None}, verbose=False)
    for name, parameter in one.trainer.loss_parameters.items():
        label = name.removeprefix("equation/log_")
        assert one.check(one.trainer)[label].value == pytest.approx(np.exp(float(parameter)))
        start = getattr(module, "START", {"diffusivity": 1.0})[label]
        assert np.exp(float(parameter)) != pytest.approx(start, rel=1e-6)
    assert len(one.picture(one.trainer).axes) == 2
