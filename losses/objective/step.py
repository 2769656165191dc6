"""What a term is given: the whole step of one replica."""

from __future__ import annotations

import copy
from typing import Any

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.outputs import name_outputs
from losses.objective.ratio import Ratio


class Step:
    """One replica's part of one step, from the batch to the predictions.

    Attributes:
      x: the inputs as the data gives them, [examples, ...] each.
      y: the labels, or None.
      sample_weight: the sample weights (class weights multiplied in), or None.
      y_pred: the model's outputs of the clean forward pass; None before it.
      model: the Keras model.
      step: int64 [], the global step, counted from 0.
      training: bool.
      examples: float32 [], the number of examples of this replica.
    """

    def __init__(
        self,
        *,
        x,
        y=None,
        sample_weight=None,
        model,
        step,
        training,
        objective=None,
        examples=None,
        forward=None,
    ) -> None:
        self.x: Any = x
        self.y: Any = y
        self.sample_weight: Any = sample_weight
        self.y_pred: Any = None
        self.model = model
        self.step = step
        self.training = training
        self._objective = objective
        self._forward = forward  # the Trainer's forward(step); None calls the model
        if examples is None:
            first = tf.nest.flatten(x)[0]
            static = tf.TensorShape(first.shape)[:1].num_elements()  # None where it is unknown
            examples = tf.cast(tf.shape(first)[0] if static is None else static, tf.float32)
        self.examples = examples

    @property
    def output_names(self) -> list[str] | None:
        """The names of the model's outputs, in order, where it has them."""
        return getattr(self._objective, "output_names", None)

    def named_outputs(self, y_pred=None) -> dict[str, tf.Tensor]:
        """The outputs by name: this step's, or those given. One without a name is called ""."""
        return name_outputs(self.y_pred if y_pred is None else y_pred, self.output_names)

    def forward(self, x):
        """The model's outputs of other inputs, by another pass that changes nothing in the model.

        Moving statistics stay those of clean inputs, which are what inference sees. The random
        state stays too: two such passes in one step draw the same dropout masks. What regularizers
        and `add_loss` give in this pass is dropped; the objective has read that of the clean pass.

        Args:
          x: inputs in the structure of `self.x`.
        Returns:
          The outputs, in the structure of `y_pred`.
        """
        with keras.StatelessScope(initialize_variables=False):
            if self._forward is None:
                return self.model(model_inputs(self.model, x), training=self.training)
            other = copy.copy(self)
            other.x = x
            return self._forward(other)

    def compiled_weights(self, names) -> tf.Tensor:
        """float32 [terms], the weights of these compiled losses at this step."""
        return self._objective.weights(names, self.step)

    def compiled_terms(
        self, *, x=None, y_pred=None, y=None, sample_weight=None
    ) -> dict[str, Ratio]:
        """The compiled losses (`Trainer(loss=)`) of other inputs or outputs.

        Args:
          x: other inputs; put through the model as `forward` does.
          y_pred: other outputs; instead of `x`. Neither: this step's own.
          y, sample_weight: other labels and weights; this step's own by default.
        Returns:
          dict: term name -> Ratio.
        """
        if x is not None and y_pred is not None:
            raise TermwiseError(
                "compiled_terms() was given both x= and y_pred=. Give one of them: "
                "x is put through the model, y_pred is taken as it is."
            )
        if x is not None:
            y_pred = self.forward(x)
        return self._objective.compiled_terms(
            self,
            y=self.y if y is None else y,
            y_pred=self.y_pred if y_pred is None else y_pred,
            sample_weight=self.sample_weight if sample_weight is None else sample_weight,
        )


def model_inputs(model, x):
    """The part of `x` that the model takes: a dict may hold more, for the terms alone.

    Args:
      model: a Keras model.
      x: the inputs as the data gives them.
    Returns:
      `x`; where it is a dict of more than a functional model's inputs, those inputs.
    """
    if not isinstance(x, dict):
        return x
    inputs = _declared_inputs(model)
    if inputs is None:
        return x
    if isinstance(inputs, dict):
        names = dict(zip(inputs, inputs, strict=True))
    else:
        names = tf.nest.map_structure(lambda tensor: getattr(tensor, "name", None), inputs)
    if not set(tf.nest.flatten(names)) <= set(x):
        return x
    return tf.nest.map_structure(x.__getitem__, names)


def _declared_inputs(model):
    """The symbolic inputs of a functional or Sequential model; a subclassed one has none."""
    inputs = getattr(model, "input", None)
    if inputs is None and getattr(model, "inputs", None):  # of a Sequential model
        return model.inputs[0]
    return inputs
