"""Trainable variables that belong to a term, not to the model."""

from __future__ import annotations

import weakref

import keras

from losses.naming import checked_name

_MADE: weakref.WeakValueDictionary[int, Parameter] = weakref.WeakValueDictionary()


class Parameter(keras.Variable):
    """A loss parameter with a name, a constraint and a direction.

    Any trainable variable that a term reads is trained; this class adds what only it can say.

    Args:
      name: str, its name in `trainer.loss_parameters` and in the logs.
      value: a number, an array, or with `shape` a Keras initializer; the initial value.
      constraint: a `keras.constraints` name ("non_neg") or object, applied after each update.
      maximize: bool; True ascends the objective instead of descending it (self-adaptive weights).
      shape: tuple, needed with an initializer only.
      dtype: str; floatx by default.
      trainable: bool.
    Raises:
      ValueError: the name is no line of plain text; the constraint's is unknown to Keras.

    Example:
      >>> a = Parameter("a", 1.0, constraint="non_neg")
      >>> float(a + 2.0)
      3.0
    """

    def __init__(
        self,
        name,
        value=0.0,
        *,
        constraint=None,
        maximize=False,
        shape=None,
        dtype=None,
        trainable=True,
    ):
        checked_name(name, "A parameter's name")
        dtype = keras.backend.standardize_dtype(dtype or keras.config.floatx())
        if not callable(value) and not isinstance(value, str):
            value = keras.ops.convert_to_tensor(value, dtype=dtype)
        elif isinstance(value, str):
            value = keras.initializers.get(value)
        super().__init__(value, shape=shape, dtype=dtype, trainable=trainable, name=name)
        self.constraint = keras.constraints.get(constraint)
        self.maximize = bool(maximize)
        _MADE[id(self.value)] = self


def parameter_of(variable) -> Parameter | None:
    """The `Parameter` that a `tf.Variable` is the value of; None where it is of none.

    A tape tells the `tf.Variable` that was read; name, constraint and direction are the
    parameter's.

    Example:
      >>> a = Parameter("a", 1.0)
      >>> parameter_of(a.value) is a
      True
    """
    parameter = _MADE.get(id(variable))
    return parameter if parameter is not None and parameter.value is variable else None
