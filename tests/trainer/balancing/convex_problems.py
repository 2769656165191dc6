"""Twenty convex problems whose optimum and multipliers are known, as the terms of one model.

    minimise  x' Q x / 2 - c' x     under  A x <= b, A x >= b or A x = b

Q, A, the optimum x* and the multipliers are drawn in float64; c and b are then what Karush, Kuhn
and Tucker ask for:

    c = Q x* + sum of s l* a,    b = a' x*  (+ slack, where the multiplier is 0)

with s = -1 for ">=". Ten problems have one active constraint, ten two; a third of the problems have
one more that is not active. All have a row of one variable each, so that they do not meet.
"""

import functools
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

import losses

PROBLEMS, SIZE = 20, 3
RELATIONS = ("at_most", "at_least", "equals")


class Bound(NamedTuple):
    """One constraint: of which problem, a, relation, b, and its multiplier at the optimum."""

    problem: int
    normal: np.ndarray
    relation: str
    limit: float
    multiplier: float


class Problems(NamedTuple):
    """Q [problems, n, n], c and the optima [problems, n], and the constraints."""

    curvature: np.ndarray
    slope: np.ndarray
    optimum: np.ndarray
    bounds: list[Bound]


def draw_problems(seed=0) -> Problems:
    rng = np.random.default_rng(seed)
    turns = np.linalg.qr(rng.normal(size=(PROBLEMS, SIZE, SIZE)))[0]
    curvature = np.einsum("pij,pj,pkj->pik", turns, rng.uniform(0.5, 2, (PROBLEMS, SIZE)), turns)
    optimum = rng.normal(size=(PROBLEMS, SIZE))
    slope = np.einsum("pij,pj->pi", curvature, optimum)
    bounds = []
    for problem in range(PROBLEMS):
        # orthogonal normals of length 1: the multipliers are well determined
        normals = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))[0]
        active = 1 + problem % 2
        for place in range(active + (problem % 3 == 0)):
            relation = RELATIONS[int(rng.integers(3 if place < active else 2))]
            multiplier = rng.uniform(0.2, 2.0) if place < active else 0.0
            multiplier *= rng.choice([-1.0, 1.0]) if relation == "equals" else 1.0
            sign = -1.0 if relation == "at_least" else 1.0
            slack = 0.0 if place < active else 0.5 * sign
            limit = normals[place] @ optimum[problem] + slack
            slope[problem] += sign * multiplier * normals[place]
            bounds.append(Bound(problem, normals[place], relation, limit, multiplier))
    return Problems(curvature, slope, optimum, bounds)


class Rows(keras.Model):
    """One variable [problems, n], whatever the inputs are."""

    def __init__(self):
        super().__init__(name="rows")
        self.x = self.add_weight(shape=(PROBLEMS, SIZE), initializer="zeros", name="x")

    def call(self, inputs):
        return inputs[:, :, tf.newaxis] * 0.0 + tf.convert_to_tensor(self.x)


def make_terms(problems: Problems, arguments) -> list:
    """The sum of the objectives, and one constraint for each bound, named by its place.

    Args:
      arguments: number of a problem -> further arguments of its constraints.
    """
    curvature = tf.constant(problems.curvature, tf.float32)
    slope = tf.constant(problems.slope, tf.float32)

    def objective(step):
        x = step.y_pred
        bent = tf.einsum("bpi,pij,bpj->b", x, curvature, x) / 2
        return bent - tf.einsum("bpi,pi->b", x, slope)

    def left(bound, step):
        return tf.reduce_sum(step.y_pred[:, bound.problem] * tf.cast(bound.normal, "float32"), -1)

    terms = [losses.term(objective, name="objective")]
    for place, bound in enumerate(problems.bounds):
        limit = {bound.relation: bound.limit}
        fn, more = functools.partial(left, bound), arguments(bound.problem)
        terms.append(losses.Constraint(fn, name=f"bound_{place}", **limit, **more))
    return terms
