"""Two quadratic terms whose gradients fit on paper, and what a weighting is given of them.

    a = |w - (2, 0)|^2 / 2 + 3 u      at w = 0, u = 1, v = 1:   a = 5    by w (-2, 0)   by u 3
    b = |w - (0, 1)|^2 / 2 + 4 v                                b = 4.5  by w (0, -1)   by v 4
    c = 5 w0, which no balancer here weighs                     c = 0    by w (5, 0)

MGDA's weights of the Gramian diag(4, 1) are (1, 4) / 5, and its direction is (-0.4, -0.8).
"""

import numpy as np
import tensorflow as tf

import losses
from losses.objective.layout import Layout
from trainer.balancing.balanced_terms import BalancedTerms
from trainer.step.gradients import Backward, ObjectiveShare
from trainer.step.outputs import ReplicaResult
from trainer.step.trainable import TrainableVariables

NAMES = ("a", "b", "c")
LAYOUT = Layout(NAMES, ((), (), ()), (None,) * 3, (False,) * 3)
ONES, RAW = (1.0, 1.0, 1.0), (5.0, 4.5, 0.0)
STRATEGY = tf.distribute.get_strategy()


def balanced(balancer):
    """The terms a and b under a balancer."""
    balancer.terms = ("a", "b")
    return BalancedTerms(balancer, LAYOUT, STRATEGY)


def step_of(number):
    return tf.constant(number, tf.int64)


def backward_of(weights=ONES, *, step=0, scale=None, counts=None, outputs=None):
    """The backward pass of the three terms under given weights.

    Args:
      scale: the loss scale.
      counts: [3], what each term of an accumulated step counts.
      outputs: w -> the output of a layer that a and b read instead of w.
    """
    values = {"w": [0.0, 0.0], "u": 1.0, "v": 1.0}
    variables = {name: losses.Parameter(name, value) for name, value in values.items()}
    with tf.GradientTape(persistent=True) as tape:
        w, u, v = (tf.convert_to_tensor(variable) for variable in variables.values())
        read = w if outputs is None else outputs(w)
        terms = [
            tf.reduce_sum(tf.square(read - [2.0, 0.0])) / 2 + 3 * u,
            tf.reduce_sum(tf.square(read - [0.0, 1.0])) / 2 + 4 * v,
            5 * w[0],
        ]
        parts = [weight * term for weight, term in zip(weights, terms, strict=True)]
        share = ObjectiveShare(
            LAYOUT,
            tf.stack(parts),
            tf.zeros([3]),
            None if scale is None else tf.constant(scale),
            None if counts is None else tf.constant(counts),
            tuple(parts),
        )
    return Backward(
        tape=tape,
        share=share,
        trainables=TrainableVariables(variables, {}, dict.fromkeys(variables, "model")),
        passes={((True, True, True), counts is not None): list(variables)},
        scales=None if scale is None else tf.constant([scale]),
        scale_index={"model": 0},
        tapped=() if outputs is None else (read,),
        step=step_of(step),
        sum_over_replicas=lambda tensor: tensor,
    )


def result_of(weights=ONES, raw=RAW, decided=None, gradients=None, jacobian=None):
    """What a step left after the sum over the replicas."""
    weights, raw = tf.constant(weights), tf.constant(raw)
    return ReplicaResult(gradients or {}, {}, None, raw, weights, jacobian or {}, decided)


def no_probe():
    raise AssertionError("no residual was asked for")


def numbers(gradients):
    return {path: np.asarray(value).tolist() for path, value in gradients.items()}
