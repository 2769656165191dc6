"""Variables of Keras and TensorFlow alike: as tensors, as values on the host, by path."""

from __future__ import annotations

from collections.abc import Container

import keras
import numpy as np
import tensorflow as tf


def tensor_variable(variable):
    """The `tf.Variable` of a `keras.Variable`; a `tf.Variable` itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def read(value) -> np.ndarray:
    """The value of a variable, mirrored or not, or of a tensor, on the host."""
    return np.asarray(tf.convert_to_tensor(value))


def free_name(name: str, taken: Container) -> str:
    """A name that is not taken: itself, or with a number.

    Example:
      >>> free_name("a", ["a", "a_1"])
      'a_2'
    """
    free, count = name, 0
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free


def by_path(variables) -> dict:
    """The variables by path; of two with one path the second is `<path>_1`."""
    paths: dict = {}
    for variable in variables:
        paths[free_name(variable.path, paths)] = variable
    return paths
