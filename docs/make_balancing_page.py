"""Makes the pictures of docs/balancing.md, and the numbers below them, from runs.

    python docs/make_balancing_page.py            rewrites the pictures and the page's tables
    python docs/make_balancing_page.py --check    says whether the page holds the tables

Needs matplotlib. Two problems with two terms in the plane, whose Pareto sets are known: two
quadratics, and the toy problem of Nash-MTL. Every method starts from the same points.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from losses import balancing  # noqa: E402

PAGE = ROOT / "docs" / "balancing.md"
PICTURES = ROOT / "docs" / "balancing"

METHODS = {
    "equal weights": None,
    "PCGrad": balancing.PCGrad(),
    "CAGrad": balancing.CAGrad(),
    "MGDA": balancing.MGDA(),
    "UPGrad": balancing.UPGrad(),
    "NashMTL": balancing.NashMTL(),
    "FairGrad": balancing.FairGrad(alpha=1.0),
}


class Problem(NamedTuple):
    """Two terms in the plane.

    Attributes:
      values: float64 [2] -> float64 [2], the terms.
      starts: float [starts, 2].
      pareto: float [points, 2], the Pareto set, in order and densely.
      steps, rate: of a run; the rate falls to 0 along a cosine.
      adam: whether the direction goes through Adam's moments, as in the paper, or is the step.
      box: ((left, right), (bottom, top)) of the picture.
    """

    values: Callable
    starts: np.ndarray
    pareto: np.ndarray
    steps: int
    rate: float
    adam: bool
    box: tuple


A, B, SCALE = np.array([-1.0, 0.0]), np.array([1.0, 0.5]), 10.0


def quadratics(w):
    """|w - a|² and 10 |w - b|²; no point off the segment from a to b is Pareto-optimal."""
    return tf.stack([tf.reduce_sum((w - A) ** 2), SCALE * tf.reduce_sum((w - B) ** 2)])


def toy(w):
    """Two valleys above (t2 > 0), two paraboloids below; the first term is a tenth as large."""
    t1, t2 = tf.unstack(w)
    least = tf.constant(5e-6, tf.float64)
    valley1 = tf.math.log(tf.maximum(tf.abs(0.5 * (-t1 - 7) - tf.tanh(-t2)), least)) + 6
    valley2 = tf.math.log(tf.maximum(tf.abs(0.5 * (-t1 + 3) + tf.tanh(-t2) + 2), least)) + 6
    bowl1 = ((t1 - 7) ** 2 + 0.1 * (t2 + 8) ** 2) / 10 - 20
    bowl2 = ((t1 + 7) ** 2 + 0.1 * (t2 + 8) ** 2) / 10 - 20
    above, below = tf.nn.relu(tf.tanh(t2 / 2)), tf.nn.relu(tf.tanh(-t2 / 2))
    return tf.stack([0.1 * (above * valley1 + below * bowl1), above * valley2 + below * bowl2])


def toy_pareto(points: int = 2001):
    """[points, 2], the Pareto set of the toy problem: one t2 for each t1 from -7 to 7.

    Below, the derivatives by t1 cancel for the weights (7 + t1) / 14 and (7 - t1) / 14 of the
    unscaled terms. Their mean of the bowls is m = (49 - t1² + 0.1 (t2 + 8)²) / 10 - 20, and that
    of the derivatives by t2 is  -m / (2 cosh²(t2 / 2)) + tanh(-t2 / 2) (t2 + 8) / 50 = 0,
    which bisection solves: it is negative at -12 and positive at -8.
    """
    t1 = np.linspace(-7.0, 7.0, points)
    low, high = np.full(points, -12.0), np.full(points, -8.0)
    for _ in range(60):
        t2 = (low + high) / 2
        mean = (49 - t1**2 + 0.1 * (t2 + 8) ** 2) / 10 - 20
        slope = -mean / (2 * np.cosh(t2 / 2) ** 2) + np.tanh(-t2 / 2) * (t2 + 8) / 50
        low, high = np.where(slope < 0, t2, low), np.where(slope < 0, high, t2)
    return np.stack([t1, (low + high) / 2], axis=1)


PROBLEMS = {
    "quadratics": Problem(
        quadratics,
        np.array([[-1.5, 1.5], [0.0, -1.2], [1.6, -0.8], [-0.4, 1.6], [1.5, 1.6]]),
        A + np.linspace(0, 1, 2001)[:, None] * (B - A),
        steps=2_000,
        rate=0.02,
        adam=False,
        box=((-2.0, 2.0), (-1.5, 2.0)),
    ),
    "toy": Problem(
        toy,
        np.array([[-8.5, 7.5], [0.0, 0.0], [9.0, 9.0], [-7.5, -0.5], [9.0, -1.0]]),
        toy_pareto(),
        steps=35_000,
        rate=2e-3,
        adam=True,
        box=((-11.0, 11.0), (-11.0, 11.0)),
    ),
}


def run(problem: Problem, balancer, start, kept: int = 500) -> np.ndarray:
    """[kept + 1, 2], points of one run in equal distances of steps, the start and the end too."""
    every = problem.steps // kept

    @tf.function(jit_compile=True)
    def steps(w, mean, square, first):
        for_each = tf.range(first, first + every)

        def one(state, step):
            w, mean, square = state
            with tf.GradientTape() as tape:
                tape.watch(w)
                values = problem.values(w)
            jacobian = tape.jacobian(values, w, experimental_use_pfor=False)
            if balancer is None:
                direction = tf.reduce_sum(jacobian, axis=0)
            else:
                direction = balancer.direction(jacobian, values=values, step=step)
            count = tf.cast(step, tf.float64)
            rate = problem.rate * 0.5 * (1 + tf.cos(np.pi * count / problem.steps))
            if problem.adam:
                mean = 0.9 * mean + 0.1 * direction
                square = 0.999 * square + 0.001 * direction**2
                first_moment = mean / (1 - 0.9 ** (count + 1))
                second_moment = square / (1 - 0.999 ** (count + 1))
                direction = first_moment / (tf.sqrt(second_moment) + 1e-8)
            return w - rate * direction, mean, square

        def body(k, *state):
            return k + 1, *one(state, for_each[k])

        return tf.while_loop(lambda k, *_: k < every, body, (0, w, mean, square))[1:]

    w = tf.constant(start, tf.float64)
    state, points = (w, tf.zeros_like(w), tf.zeros_like(w)), [np.asarray(start)]
    for k in range(kept):
        state = steps(*state, tf.constant(k * every))
        points.append(state[0].numpy())
    return np.stack(points)


def distance(points, curve) -> np.ndarray:
    """[points], the distance of each to a curve of short straight pieces [pieces + 1, 2]."""
    begin, along = curve[:-1], np.diff(curve, axis=0)
    offset = np.asarray(points)[:, None, :] - begin
    share = np.clip((offset * along).sum(-1) / (along**2).sum(-1), 0, 1)[..., None]
    return np.linalg.norm(offset - share * along, axis=-1).min(axis=1)
