"""A step small enough to compute by hand: a line through four examples, and two terms.

    y_pred = 2 x0 - x1 + 0.5        residuals 1, 2, -1, 3

    term     of an example      values            mean   gradient by kernel   by bias
    square   residual squared   1, 4, 1, 9        3.75   (3, 0.5)             2.5
    output   y_pred             2.5, -0.5,1.5,4.5 2      (1, 0.5)             1

With the weights 2 and 3 the total is 13.5, and its gradient (9, 2.5) and 8.
"""

import keras
import pytest
import tensorflow as tf

import losses
from losses.objective.objective import Objective
from trainer.optimizers.optimizers import Optimizers
from trainer.run.state import make_counter
from trainer.step.forward import build_by_call
from trainer.step.metrics import Metrics
from trainer.step.program import Discovery, Placement, StepProgram
from trainer.step.randomness import Randomness
from trainer.step.trainable import find_trainables

KERNEL, BIAS = [[2.0], [-1.0]], [0.5]
X = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]]
Y = [[1.5], [-2.5], [2.5], [1.5]]


def make_line(**dense):
    """The model: one Dense of known weights, `line/kernel` and `line/bias`."""
    inputs = keras.Input((2,))
    line = keras.layers.Dense(1, name="line", **dense)
    model = keras.Model(inputs, line(inputs), name="net")
    line.set_weights([tf.constant(KERNEL), tf.constant(BIAS)])
    return model


def make_terms():
    """The two terms, with the weights 2 and 3."""
    return [
        losses.term(lambda s: tf.square(s.y_pred - s.y)[:, 0], name="square", weight=2.0),
        losses.term(lambda s: s.y_pred[:, 0], name="output", weight=3.0),
    ]


def make_program(
    strategy=None,
    *,
    model=make_line,
    terms=make_terms,
    optimizer="sgd",
    groups=None,
    metrics=None,
    xla=False,
    per_host=False,
    **fields,
) -> StepProgram:
    """The program of a step, not traced yet.

    Args:
      strategy: TensorFlow's default one by default.
      model, terms: functions that make them.
      optimizer, groups, metrics: as `Trainer` takes them.
      xla, per_host: of its placement.
      fields: further fields of the program, instead of those made here.
    """
    strategy = strategy or tf.distribute.get_strategy()
    with strategy.scope():
        model, terms = model(), terms()
        metrics = Metrics(metrics)
    objective = Objective(terms=terms)
    optimizers = Optimizers(strategy, optimizer, groups=groups)

    def find(watched, model):
        places = objective.places()
        return find_trainables(watched, model, groups=groups, optimizers=optimizers, places=places)

    parts = dict(
        model=model,
        objective=objective,
        forward=lambda step: model(step.x, training=step.training),
        build=build_by_call,
        compute_terms=objective.compute_terms,
        counter=make_counter(strategy),
        optimizers=optimizers,
        metrics=metrics,
        randomness=Randomness(strategy),
        find_trainables=find,
        placement=Placement(strategy, per_host, xla),
        discovery=Discovery(),
    )
    return StepProgram(**{**parts, **fields})


@pytest.fixture(name="make_program")
def _make_program():
    """`make_program`."""
    return make_program


@pytest.fixture
def batch():
    """The four examples and their labels."""
    return tf.constant(X), tf.constant(Y)


@pytest.fixture(name="make_line")
def _make_line():
    """`make_line`."""
    return make_line
