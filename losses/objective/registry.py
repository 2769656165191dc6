"""Losses by name: the classic objectives and their aliases, Keras's and this library's own."""

from __future__ import annotations

import inspect

import keras
import tensorflow as tf

import losses
from losses.catalog.alignment import align
from losses.errors import TermwiseError
from losses.naming import nearest, snake_case


@keras.saving.register_keras_serializable(package="termwise")
def cosine_proximity(y_true, y_pred) -> tf.Tensor:
    """Minus the mean of the product of the normalized vectors, as in Keras 1.

        value = -mean over the last axis of (y_true / |y_true|) (y_pred / |y_pred|)

    Keras's `cosine_similarity` is the sum where this is the mean: larger by the vectors' length.
    A vector of zeros has the value 0.

    Args:
      y_true, y_pred: floating [examples, ..., outputs].
    Returns:
      float32 [examples, ...], from -1 / outputs to 1 / outputs.
    Source: `cosine_proximity` of Keras 1.

    Example:
      >>> cosine_proximity([[3.0, 4.0]], [[6.0, 8.0]]).numpy().tolist()
      [-0.5]
    """
    y_true, y_pred = align(y_true, y_pred)
    return -tf.reduce_mean(_normalized(y_true) * _normalized(y_pred), axis=-1)


@keras.saving.register_keras_serializable(package="termwise")
def mean_difference(y_true, y_pred) -> tf.Tensor:
    """The signed error: how far the predictions lie above the labels.

        value = mean over the last axis of y_pred - y_true

    Args:
      y_true, y_pred: floating [examples, ..., outputs].
    Returns:
      float32 [examples, ...].
    Source: the mean signed deviation of statistics.

    Example:
      >>> mean_difference([[1.0, 1.0]], [[2.0, 4.0]]).numpy().tolist()
      [2.0]
    """
    y_true, y_pred = align(y_true, y_pred)
    return tf.reduce_mean(y_pred - y_true, axis=-1)


def _normalized(vectors):
    """Of length 1 along the last axis; a zero vector stays zero, with gradient 0."""
    squares = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    positive = squares > 0
    return tf.where(positive, vectors * tf.math.rsqrt(tf.where(positive, squares, 1.0)), 0.0)


CLASSIC = {
    "mean_squared_error": keras.losses.mean_squared_error,
    "mse": keras.losses.mean_squared_error,
    "mean_absolute_error": keras.losses.mean_absolute_error,
    "mae": keras.losses.mean_absolute_error,
    "mean_absolute_percentage_error": keras.losses.mean_absolute_percentage_error,
    "mape": keras.losses.mean_absolute_percentage_error,
    "mean_squared_logarithmic_error": keras.losses.mean_squared_logarithmic_error,
    "msle": keras.losses.mean_squared_logarithmic_error,
    "squared_hinge": keras.losses.squared_hinge,
    "hinge": keras.losses.hinge,
    "categorical_crossentropy": keras.losses.categorical_crossentropy,
    "sparse_categorical_crossentropy": keras.losses.sparse_categorical_crossentropy,
    "binary_crossentropy": keras.losses.binary_crossentropy,
    "kullback_leibler_divergence": keras.losses.kl_divergence,
    "kld": keras.losses.kl_divergence,
    "poisson": keras.losses.poisson,
    "cosine_proximity": cosine_proximity,
    "mean_difference": mean_difference,
}


def get(identifier):
    """The loss of a name, or what `keras.losses.get` makes of anything else.

    Args:
      identifier: a name: of `CLASSIC`, of a loss of this library ("sparse_focal", "SparseFocal")
        or of Keras ("huber"); a serialized loss; a function or a `keras.losses.Loss`; None.
    Returns:
      A function `(y_true, y_pred)`, a `keras.losses.Loss`, or None.
    Raises:
      ValueError: an unknown name, or a loss that has arguments without a default.

    Example:
      >>> get("sparse_focal").gamma
      2.0
      >>> get("mse").__name__
      'mean_squared_error'
    """
    if not isinstance(identifier, str):
        return keras.losses.get(identifier)
    if identifier in CLASSIC:
        return CLASSIC[identifier]
    own = _own_losses()
    if identifier in own:
        return _with_defaults(identifier, own[identifier])
    try:
        return keras.losses.get(identifier)
    except ValueError:
        names = [*CLASSIC, *own, *_keras_losses()]
        near = nearest(identifier, names, 3) or nearest(identifier.lower(), names, 3, least=0.4)
        nearest_names = f" The nearest: {', '.join(map(repr, near))}." if near else ""
        raise TermwiseError(
            f"There is no loss named {identifier!r}.{nearest_names} Accepted: "
            f"{', '.join(sorted(CLASSIC))}, and the losses of this library and of Keras in "
            "snake_case."
        ) from None


def _own_losses() -> dict[str, type]:
    """The `keras.losses.Loss` classes of this library by class name and in snake_case."""
    found = {}
    for name in losses.__all__:
        value = getattr(losses, name)
        if inspect.isclass(value) and issubclass(value, keras.losses.Loss):
            found[name] = found[snake_case(name)] = value
    return found


def _keras_losses() -> list[str]:
    return [n for n in dir(keras.losses) if n not in ("get", "serialize", "deserialize", "Loss")]


def _with_defaults(name, loss):
    needed = [
        parameter.name
        for parameter in inspect.signature(loss).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
        and parameter.kind is not parameter.VAR_POSITIONAL
    ]
    if needed:
        raise TermwiseError(
            f"The loss {name!r} has no default for {', '.join(needed)}. Pass the object: "
            f"losses.{loss.__name__}({', '.join(f'{n}=...' for n in needed)})."
        )
    return loss()
