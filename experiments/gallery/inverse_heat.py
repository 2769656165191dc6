"""The diffusivity of a rod from 100 measured temperatures: four sources of points, one unknown.

    u_t = k u_xx     on t in 0..1, x in 0..1,    k unknown
    u(0, x) = sin(pi x) + sin(3 pi x) / 2,       u(t, 0) = u(t, 1) = 0

The equation holds at interior points, the conditions at points of the faces, and the measurements
are values of u without noise. The logarithm of k is a loss parameter of the equation's term and
trains along. The solution is known: each sine decays by exp(-k (n pi)^2 t).
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import losses
from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery.burgers import derivatives
from trainer import BFGS, Box, Phase, Sources, Trainer

DIFFUSIVITY = 0.1
DOMAIN = Box((0, 1), (0, 1))  # t, x
BALANCERS = {
    "annealing": losses.balancing.LearningRateAnnealing,
    "relobralo": losses.balancing.ReLoBRaLo,
    "ntk": losses.balancing.NTK,
}


def solution(points) -> np.ndarray:
    """The temperature at points (t, x), [n, 2]: [n, 1]."""
    t, x = points.T
    modes = [(1, 1.0), (3, 0.5)]
    parts = [
        size * np.exp(-DIFFUSIVITY * (n * np.pi) ** 2 * t) * np.sin(n * np.pi * x)
        for n, size in modes
    ]
    return sum(parts)[:, None]


def sources(domain: Box, solution, counts, seed: int) -> Sources:
    """Interior points without values; points of the faces, and measured ones, with theirs.

    Args:
      counts: of `interior`, `boundary`, `initial` and `measured` points.
    """
    boundary = domain.boundary(counts.boundary, seed=seed + 1)
    initial = domain.face(0, "low", counts.initial, seed=seed + 2)
    measured = domain.interior(counts.measured, seed=seed + 3, method="uniform")
    known = {"boundary": boundary, "initial": initial, "measured": measured}
    with_values = {name: (points, solution(points)) for name, points in known.items()}
    return Sources(interior=(domain.interior(counts.interior, seed=seed),), **with_values)


def misfit(step):
    """What the model is off at points with values: [n, 1]."""
    return step.y_pred - step.y


def terms(residual, parameters) -> list:
    """The equation with its unknown coefficients, and what is known at points."""
    known = ("boundary", "initial", "measured")
    return [
        losses.PDEResidual(
            residual, None, parameters=parameters, name="equation", source="interior"
        ),
        *(losses.Squares(misfit, name=name, source=name) for name in known),
    ]


def residual(model, points, parameters):
    """u_t - k u_xx at points [n, 2]: [n]."""
    _, u_t, _, u_xx = derivatives(model, points)
    return u_t - tf.exp(parameters["log_diffusivity"]) * u_xx


def build_model(width: int, depth: int) -> keras.Model:
    """(t, x), [points, 2] -> u, [points, 1]."""
    dense = [keras.layers.Dense(width, "tanh") for _ in range(depth)]
    return keras.Sequential([keras.Input((2,)), *dense, keras.layers.Dense(1)])


def arguments(config) -> dict:
    """What `config.variant` gives the Trainer: a second-order phase, a balancer, or neither."""
    if config.variant == "second_order":
        adam = Phase("adam", until=config.adam_steps)
        return {"phases": [adam, Phase("second_order", optimizer=BFGS())]}
    balancer = BALANCERS.get(config.variant)
    return {} if balancer is None else {"balancer": balancer()}


def experiment(config, *, strategy, workdir) -> Experiment:
    """The unknown diffusivity, as `config` says.

    Args:
      config: ConfigDict of `experiments/configs/inverse_heat.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    trainer = Trainer(
        lambda: build_model(config.width, config.depth),
        optimizer=keras.optimizers.Adam(config.learning_rate),
        terms=terms(residual, {"log_diffusivity": 0.0}),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
        **arguments(config),
    )

    def check(trainer):
        found = float(np.exp(trainer.loss_parameters["equation/log_diffusivity"].numpy()))
        error = abs(found / DIFFUSIVITY - 1)
        return {"diffusivity": Check(found), "relative error": Check(error, at_most=0.01)}

    data = sources(DOMAIN, solution, config.points, config.seed)
    return Experiment(
        trainer,
        data,
        fit={**fit_settings(config), "batch_size": config.points.to_dict()},
        check=check,
        picture=lambda trainer: draw(trainer.model, DOMAIN, solution, data.data["measured"][0]),
    )


def draw(model, domain: Box, solution, points):
    """The solution and the model at three times, and where u was measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    at_times, places = figure.subplots(1, 2)
    low, high = domain.intervals[1]
    x = np.linspace(low, high, 200)
    for number, t in enumerate((0.1, 0.4, 0.8)):
        line = np.stack([np.full(200, t), x], 1)
        at_times.plot(x, solution(line)[:, 0], f"C{number}:")
        at_times.plot(x, np.asarray(model(tf.constant(line)))[:, 0], f"C{number}", label=f"t = {t}")
    at_times.set(xlabel="x", title="u: found, and dotted the truth")
    at_times.legend()
    places.scatter(*points.T, s=4)
    places.set(xlabel="t", ylabel="x", title="where u was measured")
    return figure
