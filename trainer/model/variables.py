"""Variables of Keras and TensorFlow alike: as tensors, as values on the host, by path."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator

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


def owned_variables(terms, attributes, model) -> list:
    """The variables of terms, and those of networks among a subclass's attributes."""
    variables = [variable for term in terms for variable in term.variables]
    for value in attributes:
        if isinstance(value, keras.Layer) and value is not model:
            variables += value.variables
        elif isinstance(value, keras.Variable):
            variables.append(value)
    return variables


@contextlib.contextmanager
def put_back(variables: list) -> Iterator[None]:
    """Around passes after which `tf.Variable`s have again the values they had."""
    values = [tf.identity(variable) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
