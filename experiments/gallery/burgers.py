"""Viscous Burgers by a physics-informed network: Adam, then a second-order method over all points.

    u_t + u u_x = nu u_xx      on t in 0..1, x in -1..1,  nu = 0.01 / pi
    u(0, x) = -sin(pi x),      u(t, -1) = u(t, 1) = 0

A shock forms at x = 0. The network N is inside an ansatz that meets the initial and the boundary
conditions by itself, u = -sin(pi x) + t (1 - x^2) (N(t, x) - N(t, -x)), and is odd in x as the
solution is: the residual of the equation at x > 0 is the only term. Half of the points lie close to
the shock. The solution is known: Cole and Hopf's.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.experiment import Check, Experiment, fit_settings
from trainer import BFGS, LBFGS, Box, GaussNewton, Phase, Trainer

VISCOSITY = 0.01 / np.pi
DOMAIN = Box((0, 1), (-1, 1))  # t, x
HELD_OUT = 20_000  # points that no weight is fitted to, at which settings are compared
METHODS = {"bfgs": BFGS, "lbfgs": LBFGS, "gauss_newton": GaussNewton}


@keras.saving.register_keras_serializable(package="termwise")
class Ansatz(keras.layers.Layer):
    """-sin(pi x) + t (1 - x^2) N, of points [n, 2] and an odd network's output N, [n, 1]."""

    def call(self, points, network):
        t, x = points[:, :1], points[:, 1:]
        return -tf.sin(np.pi * x) + t * (1 - tf.square(x)) * network


def build_model(width: int, depth: int) -> keras.Model:
    """(t, x), [points, 2] -> u, [points, 1]."""
    points = keras.Input((2,))
    dense = [
        keras.layers.Dense(width, "tanh", kernel_initializer="glorot_normal") for _ in range(depth)
    ]
    network = keras.Sequential([*dense, keras.layers.Dense(1)], name="network")
    scaled = keras.layers.Rescaling([2.0, 1.0], offset=[-1.0, 0.0])(points)
    mirrored = keras.layers.Rescaling([1.0, -1.0])(scaled)
    odd = keras.layers.Subtract()([network(scaled), network(mirrored)])
    return keras.Model(points, Ansatz()(points, odd), name="burgers")


def derivatives(model, points):
    """u, u_t, u_x and u_xx of a model at points (t, x), [n, 2]: [n] each."""
    with tf.GradientTape() as outer:
        outer.watch(points)
        with tf.GradientTape() as inner:
            inner.watch(points)
            u = model(points)
        slopes = inner.gradient(u, points)
        u_x = slopes[:, 1]
    u_xx = outer.gradient(u_x, points)[:, 1]
    return u[:, 0], slopes[:, 0], u_x, u_xx


def residual(model, points, parameters):
    """u_t + u u_x - nu u_xx at points [n, 2]: [n]."""
    u, u_t, u_x, u_xx = derivatives(model, points)
    return u_t + u * u_x - VISCOSITY * u_xx


def collocation(count: int, seed: int) -> np.ndarray:
    """Points with x > 0, [count, 2]: half of them spread, a quarter close to x = 0, at scales down
    to 0.001, where the shock is, and a quarter as close to t = 0: what happens between the initial
    values and the first points would be seen by no point.
    """
    right = Box((0, 1), (0, 1))
    quarter = count // 4
    spread = right.interior(count - 2 * quarter, seed=seed)
    of_shock, of_start = (right.interior(quarter, seed=seed + 1000 * k) for k in (1, 2))
    of_shock[:, 1] = 10 ** (3 * (of_shock[:, 1] - 1))
    of_start[:, 0] = 10 ** (3 * (of_start[:, 0] - 1))
    return np.concatenate([spread, of_shock, of_start])


def solution(t, x, nodes: int = 100) -> np.ndarray:
    """Cole and Hopf's u at times and places [n], t > 0, by Gauss-Hermite quadrature.

    u = -int sin(pi y) f(y) e^(-z^2) dz / int f(y) e^(-z^2) dz,  y = x - sqrt(4 nu t) z,
    f(y) = exp(-cos(pi y) / (2 pi nu)).  Source: Basdevant et al. 1986, eq. 2.5.
    """
    z, weights = np.polynomial.hermite.hermgauss(nodes)
    y = x[:, None] - np.sqrt(4 * VISCOSITY * t)[:, None] * z
    f = np.exp(-(np.cos(np.pi * y) + 1) / (2 * np.pi * VISCOSITY)) * weights
    return -np.sum(np.sin(np.pi * y) * f, 1) / np.sum(f, 1)


def test_grid() -> tuple[np.ndarray, np.ndarray]:
    """Points [n, 2] of a grid of 100 times and 256 places, and u there, [n]."""
    grid = np.meshgrid(np.linspace(0.01, 1, 100), np.linspace(-1, 1, 256), indexing="ij")
    points = np.stack([part.ravel() for part in grid], 1)
    return points, solution(*points.T)


def relative_error(model, points, u) -> float:
    """|u of the model - u| / |u|, both norms over the points."""
    found = np.asarray(model(tf.constant(points)))[:, 0]
    return float(np.linalg.norm(found - u) / np.linalg.norm(u))


def phases(config) -> list[Phase]:
    """Adam, then the method of `config.method`; "adam" alone; or the method alone."""
    if config.method == "adam":
        return []
    second = Phase("second_order", optimizer=METHODS[config.method]())
    return [Phase("adam", until=config.adam_steps), second] if config.adam_steps else [second]


def experiment(config, *, strategy, workdir) -> Experiment:
    """Burgers' equation, as `config` says.

    Args:
      config: ConfigDict of `experiments/configs/burgers.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    points, u = test_grid()
    trainer = Trainer(
        lambda: build_model(config.width, config.depth),
        optimizer=keras.optimizers.Adam(config.learning_rate),
        terms=[losses.PDEResidual(residual, points=None, name="burgers")],
        phases=phases(config),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
    )

    def check(trainer):
        error = relative_error(trainer.model, points, u)
        apart = tf.constant(collocation(HELD_OUT, config.seed + 500))
        unseen = np.sqrt(np.mean(np.square(residual(trainer.model, apart, None))))
        return {
            "relative L2 error": Check(error, at_most=config.error_at_most),
            "residual at other points, root mean square": Check(float(unseen)),
        }

    return Experiment(
        trainer,
        (collocation(config.batch_size, config.seed),),
        fit=fit_settings(config),
        check=check,
        picture=lambda trainer: draw(trainer.model, points, u),
    )


def draw(model, points, u):
    """The solution found, and where it is wrong."""
    from matplotlib.figure import Figure

    found = np.asarray(model(tf.constant(points)))[:, 0]
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, values, title in zip(
        figure.subplots(1, 2, sharey=True), (found, np.abs(found - u)), ("u", "error"), strict=True
    ):
        shown = axes.pcolormesh(*(values.reshape(100, 256) for values in (*points.T, values)))
        figure.colorbar(shown, ax=axes)
        axes.set(xlabel="t", title=title)
    return figure
