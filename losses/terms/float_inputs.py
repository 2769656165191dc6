"""The inputs that can be moved a little: the floating tensors of `x` as one matrix and back."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.naming import suggestion


class FloatInputs:
    """The floating tensors among a step's inputs, an example's joined into one row.

    A norm over a row is the norm jointly over all floating inputs of the example. Integer, boolean,
    string, sparse and ragged inputs stay as they are.

    Args:
      x: the inputs, a nest of [examples, ...].
      term: name of the term, for the error.
    Raises:
      ValueError: there is no floating input.

    Example:
      >>> inputs = FloatInputs({"a": tf.ones([2, 3]), "id": tf.constant([4, 5])}, "term")
      >>> inputs.rows.shape, inputs.with_rows(inputs.rows + 1.0)["id"].numpy().tolist()
      (TensorShape([2, 3]), [4, 5])
    """

    def __init__(self, x, term: str):
        self.x = x
        flat = tf.nest.flatten(x)
        self.flat = [tf.convert_to_tensor(t) if isinstance(t, np.ndarray) else t for t in flat]
        self.places = [i for i, t in enumerate(self.flat) if _is_floating(t)]
        if not self.places:
            kinds = ", ".join(sorted({getattr(t, "dtype", type(t)).name for t in self.flat}))
            raise TermwiseError(
                f"Term {term!r} perturbs floating inputs, but the inputs are {kinds}. Give the "
                "model floating inputs: move an embedding in front of it, or cast."
            )
        self.rows = self.to_rows([self.flat[i] for i in self.places])

    def to_rows(self, tensors) -> tf.Tensor:
        """float32 [examples, features] of one tensor for each floating input."""
        rows = []
        for place, tensor in zip(self.places, tensors, strict=True):
            examples, size = self._sizes(self.flat[place])
            rows.append(tf.reshape(tf.cast(tensor, tf.float32), [examples, size]))
        return rows[0] if len(rows) == 1 else tf.concat(rows, axis=1)

    def with_rows(self, rows):
        """The inputs with these values, float32 [examples, features], in the floating ones."""
        flat = list(self.flat)
        sizes = [self._sizes(flat[place])[1] for place in self.places]
        parts = [rows] if len(sizes) == 1 else tf.split(rows, sizes, axis=1)
        for place, part in zip(self.places, parts, strict=True):
            like = flat[place]
            part = tf.cast(tf.reshape(part, tf.shape(like)), like.dtype)
            flat[place] = tf.ensure_shape(part, like.shape)
        return tf.nest.pack_sequence_as(self.x, flat)

    def spread(self, values, what: str, default: float) -> tf.Tensor:
        """What is given for the inputs, such as a mask, as float32 [examples, features].

        Args:
          values: a number or array that broadcasts to every floating input; or, where the inputs
            are a dict or list, one of these for each in the same structure; a name that is left
            out, or None, has the default.
          what: the argument's name, for errors.
        Raises:
          ValueError: a name or number of inputs that `x` does not have, or another shape.
        """
        tensors = []
        for place, value in zip(self.places, self._by_place(values, what), strict=True):
            like = self.flat[place]
            value = tf.cast(tf.convert_to_tensor(default if value is None else value), tf.float32)
            try:
                tf.broadcast_static_shape(value.shape, like.shape[1:])
                tensors.append(tf.broadcast_to(value, tf.shape(like)))
            except ValueError as error:
                raise TermwiseError(
                    f"{what} has shape {tuple(value.shape)} for an input of shape "
                    f"{tuple(like.shape)}. Give one number, or one for each feature: "
                    f"{tuple(like.shape[1:])}."
                ) from error
        return self.to_rows(tensors)

    def _by_place(self, values, what: str) -> list:
        """The value of each floating input."""
        if isinstance(values, dict):
            of_inputs = self._by_name(values, what)
        elif isinstance(self.x, (list, tuple)) and isinstance(values, (list, tuple)):
            of_inputs = list(values)
        else:
            of_inputs = [values] * len(self.flat)
        if len(of_inputs) != len(self.flat):
            raise TermwiseError(
                f"{what} is given for {len(of_inputs)} inputs; there are {len(self.flat)}. Give "
                "one for each, or None."
            )
        return [of_inputs[place] for place in self.places]

    def _by_name(self, values: dict, what: str) -> list:
        """The value of each input of a dict, in the order of `flat`; None where it is left out."""
        names = list(self.x) if isinstance(self.x, dict) else []
        for name in values:
            if name not in names:
                raise TermwiseError(
                    f"{what} names input {name!r}; the inputs are "
                    f"{', '.join(map(repr, names)) or 'one tensor without a name'}."
                    f"{suggestion(name, names)}"
                )
        leaves = tf.nest.flatten({name: _Leaf(values.get(name)) for name in names})
        return [leaf.value for leaf in leaves]

    def _sizes(self, tensor):
        size = tensor.shape[1:].num_elements()
        if size is None:
            size = tf.reduce_prod(tf.shape(tensor)[1:])
        return tf.shape(tensor)[0], size


class _Leaf:
    """Hides a list or array from `tf.nest`."""

    def __init__(self, value):
        self.value = value


def _is_floating(tensor):
    return isinstance(tensor, tf.Tensor) and tensor.dtype.is_floating
