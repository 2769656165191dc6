"""Consistency of one model on two views of each example."""

from __future__ import annotations

import inspect

import keras

from losses.errors import TermwiseTypeError
from losses.example_random import example_keys, stateless_seeds
from losses.objective import Term, compiled_ratios, name_losses


@keras.saving.register_keras_serializable(package="termwise")
class Consistency(Term):
    """How far the outputs for an example lie from those for another view of it.

        raw = mean over examples of distance(model(x), model(augment(x)))

    The first view is the step's own pass, the second one a further pass with the step's `training`
    that leaves no trace in moving statistics. Gradients flow through both views; stop one inside
    `distance` where it is to be the target:
    `distance=lambda first, second: tf.square(tf.stop_gradient(first) - second)`.

    Args:
      augment: a function of the inputs, or of the inputs and seeds; gives inputs of the same
        structure. The seeds, int32 [examples, 2], are one `tf.random.stateless_*` seed for each
        example, a function of the example and the step: with them two replicas see the views that
        one sees, and a resumed run the same as one that was not stopped (XLA makes other numbers
        of a seed). A Keras layer is called with the step's `training` and draws from its own seed,
        on two replicas other views than on one.
      distance: a loss as `Trainer(loss=)` takes it, by output where there are several; called with
        the first view as `y_true` and the second as `y_pred`.
      seed: int, of the seeds.
      weight, name, trains, source: as in `Term`.
    Returns:
      Ratio; with several distances a dict of them, `<name>/<output>`.
    Raises:
      TypeError: `augment` is no function, or `distance` no loss.
    Source: Laine and Aila 2017 (the Pi-model).

    Example:
      >>> import numpy as np
      >>> import tensorflow as tf
      >>> from losses import Step
      >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
      >>> model.set_weights([np.array([[2.0]])])
      >>> step = Step(x=tf.ones([4, 1]), model=model, step=0, training=True)
      >>> step.y_pred = model(step.x)
      >>> float(Consistency(lambda x: -x).call(step).value())              # (2 - (-2))^2
      16.0
    """

    def __init__(
        self,
        augment,
        distance="mean_squared_error",
        *,
        seed=0,
        weight=1.0,
        name=None,
        trains=None,
        source=None,
    ):
        super().__init__(weight=weight, name=name, trains=trains, source=source)
        if not callable(augment):
            raise TermwiseTypeError(
                f"Consistency(augment={augment!r}): give a function of the inputs, or of the "
                "inputs and seeds, or a Keras layer."
            )
        self.augment = augment
        self.distance = distance
        self.seed = int(seed)
        self._distances = None

    def call(self, step):
        y_pred = step.forward(self._second_view(step))
        if self._distances is None:
            self._distances = name_losses(self.distance, y_pred, step.output_names)
        ratios = compiled_ratios(
            self._distances,
            y=step.y_pred,
            y_pred=y_pred,
            sample_weight=None,
            examples=step.examples,
            output_names=step.output_names,
        )
        return next(iter(ratios.values())) if len(ratios) == 1 else ratios

    def _second_view(self, step):
        if isinstance(self.augment, keras.Layer):
            return self.augment(step.x, training=step.training)
        if _wants_seeds(self.augment):
            seeds = stateless_seeds(example_keys(step.x, self.seed, step.step))
            return self.augment(step.x, seeds)
        return self.augment(step.x)

    def get_config(self):
        return {
            **super().get_config(),
            "augment": self.augment,
            "distance": self.distance,
            "seed": self.seed,
        }


def _wants_seeds(function) -> bool:
    """Whether a function takes a second argument that has no default."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = [p for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    return len(needed) == 2
