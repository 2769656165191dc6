"""Both coefficients of Burgers' equation from values of its solution: four sources of points.

    u_t + a u u_x = b u_xx     on t in 0..1, x in -1..1,    a and b unknown
    u(0, x) = -sin(pi x),      u(t, -1) = u(t, 1) = 0

The truth is a = 1 and b = 0.01 / pi; the measured values are Cole and Hopf's solution, without
noise. The logarithms of a and b are loss parameters and train along.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from experiments.experiment import Check, Experiment, fit_settings
from experiments.gallery import burgers
from experiments.gallery.inverse_heat import arguments, build_model, draw, sources, terms
from trainer import Trainer

TRUTH = {"advection": 1.0, "viscosity": burgers.VISCOSITY}
START = {"advection": 0.3, "viscosity": 0.03}


def solution(points) -> np.ndarray:
    """u at points (t, x), [n, 2]: [n, 1]; at t = 0 the initial values."""
    t, x = points.T
    u = -np.sin(np.pi * x)
    u[t > 0] = burgers.solution(t[t > 0], x[t > 0])
    u[np.abs(x) == 1] = 0.0
    return u[:, None]


def residual(model, points, parameters):
    """u_t + a u u_x - b u_xx at points [n, 2]: [n]."""
    u, u_t, u_x, u_xx = burgers.derivatives(model, points)
    a, b = (tf.exp(parameters[f"log_{name}"]) for name in TRUTH)
    return u_t + a * u * u_x - b * u_xx


def experiment(config, *, strategy, workdir) -> Experiment:
    """The unknown coefficients, as `config` says.

    Args:
      config: ConfigDict of `experiments/configs/inverse_burgers.py`.
      strategy: str or `tf.distribute.Strategy`.
      workdir: str, or None to keep nothing.
    """
    keras.utils.set_random_seed(config.seed)
    trainer = Trainer(
        lambda: build_model(config.width, config.depth),
        optimizer=keras.optimizers.Adam(config.learning_rate),
        terms=terms(residual, {f"log_{name}": np.log(value) for name, value in START.items()}),
        strategy=strategy,
        workdir=workdir,
        seed=config.seed,
        config=config.to_dict(),
        **arguments(config),
    )

    def check(trainer):
        checks = {}
        for name, value in TRUTH.items():
            found = float(np.exp(trainer.loss_parameters[f"equation/log_{name}"].numpy()))
            checks[name] = Check(found)
            checks[f"{name}, relative error"] = Check(abs(found / value - 1), at_most=0.05)
        return checks

    data, domain = sources(burgers.DOMAIN, solution, config.points, config.seed), burgers.DOMAIN
    return Experiment(
        trainer,
        data,
        fit={**fit_settings(config), "batch_size": config.points.to_dict()},
        check=check,
        picture=lambda trainer: draw(trainer.model, domain, solution, data.data["measured"][0]),
    )
