"""What a term is given: the whole step of one replica."""

from __future__ import annotations

import copy
from typing import Any

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.outputs import name_outputs
from losses.objective.ratio import Ratio


class AbsentSource(TermwiseError):
    """A term asks for a source that this step does not draw: the term is absent from it."""


class Step:
    """One replica's part of one step, from the batch to the predictions.

    Where the data are several named sources, `step["name"]` is the step of one of them, with its
    own `x`, `y`, `sample_weight`, `examples` and `y_pred`; the step itself is that of the main one.

    Attributes:
      x: the inputs as the data gives them, [examples, ...] each.
      y: the labels, or None.
      sample_weight: the sample weights (class weights multiplied in), or None.
      y_pred: the model's outputs of the clean forward pass; None before it. That of another source
        than the main one is made when it is first read.
      model: the Keras model.
      step: int64 [], the global step, counted from 0.
      training: bool.
      examples: float32 [], the number of examples of this replica.
      source: the name of the source, or None where the data have none.
      present: float32 [], 0 where the examples are padding; None: they are not.
      known_sources: the names of all sources that the run trains on.
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
        source=None,
        present=None,
        outputs=None,
    ) -> None:
        self.x: Any = x
        self.y: Any = y
        self.sample_weight: Any = sample_weight
        self.source: str | None = source
        self.present: Any = present
        self._y_pred: Any = None
        self._outputs = outputs  # (step) -> the model's outputs, when they are first read
        self._sources: dict[str, Step] = {}
        self._undrawn: frozenset[str] = frozenset()
        self.known_sources: frozenset[str] = frozenset()
        self._left_out: frozenset[str] = frozenset()
        self._asked: list[str] = []
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
    def y_pred(self) -> Any:
        """The model's outputs of the clean forward pass, as the model gives them."""
        if self._y_pred is None and self._outputs is not None:
            outputs, self._outputs = self._outputs, None
            self._y_pred = outputs(self)
        return self._y_pred

    @y_pred.setter
    def y_pred(self, outputs) -> None:
        self._y_pred = outputs

    def with_sources(self, sources: dict[str, Step], undrawn=(), known=()) -> Step:
        """The step, which knows those of all sources.

        Args:
          sources: name -> step; the main one, this step, is the first.
          undrawn: names of those that this step has no batch of.
          known: names of all that the run trains on.
        """
        self._sources, self._undrawn = sources, frozenset(undrawn)
        self.known_sources = frozenset([*sources, *undrawn, *known])
        return self

    def without_terms(self, names) -> Step:
        """The step, of which terms of some names are not wanted."""
        self._left_out = frozenset(names)
        return self

    def leaves_out(self, term: str) -> bool:
        """Whether a term of this name is not wanted in this step, so that it need not be made."""
        return term in self._left_out

    @property
    def sources(self) -> dict[str, Step]:
        """name -> step of each source that is drawn, the main one first; empty without names."""
        return dict(self._sources)

    def __contains__(self, name) -> bool:
        """Whether this step has a batch of a source."""
        return name in self._sources

    def __getitem__(self, name: str) -> Step:
        """The step of a source: its `x`, `y`, `sample_weight`, `examples` and `y_pred`.

        Raises:
          ValueError: the data have no source of that name.
        """
        if name in self._sources:
            self._asked.append(name)
            return self._sources[name]
        known = ", ".join(map(repr, self._sources)) or "none: they are one source without a name"
        if name in self._undrawn or not self.training:
            raise AbsentSource(
                f"step[{name!r}]: this batch holds nothing of that source; it holds {known}. Ask "
                f"`if {name!r} in step` first."
            )
        raise TermwiseError(
            f"step[{name!r}]: the data have no source of that name; they have {known}. Give it by "
            f"fit(trainer.Sources({name}=...))."
        )

    def of_source(self, name: str | None) -> Step:
        """The step of a source; this one where it is of no name, or its source is not drawn."""
        return self if name is None else self._sources.get(name, self)

    def watched(self) -> Step:
        """The same step, which notes the sources it is asked for from here on, in `asked`."""
        step = copy.copy(self)
        step._asked = []
        return step

    @property
    def asked(self) -> list[str]:
        """The sources that were asked for by name, each once."""
        return list(dict.fromkeys(self._asked))

    def of_rows(self, x, y=None, sample_weight=None) -> Step:
        """The step of other examples of this source; its outputs are made when they are read.

        Args:
          x, y, sample_weight: as those of this step, of any number of examples.
        """
        other = copy.copy(self)
        other.x, other.y, other.sample_weight = x, y, sample_weight
        other._y_pred, other._outputs = None, self._forward
        other._sources = {} if self.source is None else {self.source: other}
        other.examples = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)
        return other

    def mean(self, values) -> Ratio:
        """The mean over this source's examples, for what `compute_terms` makes of a source.

        Args:
          values: floating [examples], or [], a scalar that counts by the examples.

        Example: in `compute_terms`
          terms["boundary"] = step["boundary"].mean(tf.square(u)[:, 0])
        """
        values = tf.convert_to_tensor(values)
        of_examples = values.shape.rank == 1
        ratio = Ratio.of_examples(values) if of_examples else Ratio.by_share(values, self.examples)
        return ratio.placed_by(self)

    @property
    def output_names(self) -> list[str] | None:
        """The names of the model's outputs, in order, where it has them."""
        return getattr(self._objective, "output_names", None)

    def named_outputs(self, y_pred=None) -> dict[str, tf.Tensor]:
        """The outputs by name: this step's, or those given. One without a name is called ""."""
        return name_outputs(self.y_pred if y_pred is None else y_pred, self.output_names)

    def forward(self, x, *, training=None, values=()):
        """The model's outputs of other inputs, by another pass that changes nothing in the model.

        Moving statistics stay those of clean inputs, which are what inference sees. The random
        state stays too: two such passes in one step draw the same dropout masks. What regularizers
        and `add_loss` give in this pass is dropped; the objective has read that of the clean pass.

        Args:
          x: inputs in the structure of `self.x`.
          training: whether layers run as in training; as in this step by default.
          values: (variable, tensor) pairs: what Keras variables are to be in this pass.
        Returns:
          The outputs, in the structure of `y_pred`.
        """
        training = self.training if training is None else training
        with keras.StatelessScope(values, initialize_variables=False):
            if self._forward is None:
                return self.model(model_inputs(self.model, x), training=training)
            other = copy.copy(self)
            other.x, other.training = x, training
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
