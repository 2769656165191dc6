"""The metrics of a user: of names, functions and objects, copied; and those that layers hold."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.layers import layers_of


class FunctionMetric(keras.metrics.MeanMetricWrapper):
    """The mean of a function `(y_true, y_pred)` of a user's own."""


def resolved_metrics(metrics):
    """What `Model.compile(metrics=)` takes, with a metric of its own in each place.

    Raises:
      TypeError, ValueError: a metric that Keras does not know, or that cannot be copied.
    """
    if isinstance(metrics, dict):
        return {name: resolved_metrics(metric) for name, metric in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        return [resolved_metrics(metric) for metric in metrics]
    return None if metrics is None else _resolved(metrics)


def of_keras(metric: keras.metrics.Metric) -> bool:
    """Whether all that a metric does is Keras's, but for a function that it takes the mean of."""
    return isinstance(metric, FunctionMetric) or type(metric).__module__.startswith("keras.")


def held_metrics(model: keras.Layer) -> list[keras.metrics.Metric]:
    """The metrics that the layers of a model hold, and update when they are called."""
    metrics = (m for layer in layers_of(model) for m in _metrics_in(vars(layer)))
    return list({id(metric): metric for metric in metrics}.values())


def _metrics_in(attributes: dict) -> Iterator[keras.metrics.Metric]:
    for value in _values(attributes):
        if isinstance(value, keras.metrics.Metric):
            yield value


def _values(nest, depth: int = 3) -> Iterator[Any]:
    """The values of attributes, those in lists, tuples, sets and dicts among them."""
    for value in list(nest.values()) if isinstance(nest, dict) else list(nest):
        if depth and isinstance(value, (dict, list, tuple, set)):
            yield from _values(value, depth - 1)
        else:
            yield value


def _resolved(metric) -> keras.metrics.Metric:
    if isinstance(metric, keras.metrics.Metric):
        return copied(metric)
    if metric in ("accuracy", "acc", "crossentropy", "ce"):
        kind = "accuracy" if metric in ("accuracy", "acc") else "crossentropy"
        return keras.metrics.MeanMetricWrapper(_by_shape(kind), name=metric)
    if isinstance(metric, (str, dict)):
        return _named(metric)
    if isinstance(metric, type) and issubclass(metric, keras.metrics.Metric):
        return metric()
    if callable(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        return FunctionMetric(_real(metric), name="metric" if "<" in name else name)
    raise TermwiseTypeError(
        f"metrics= holds {metric!r}. Accepted: a name, a function (y_true, y_pred), a "
        "keras.metrics.Metric, or a list or dict of these by output."
    )


def _real(function):
    """A function whose values must be real: their mean is that of floats."""

    @functools.wraps(function, updated=())
    def of_real_values(*arguments, **keywords):
        values = function(*arguments, **keywords)
        if getattr(getattr(values, "dtype", None), "is_complex", False):
            raise TermwiseTypeError(
                f"metrics= holds a function that returned {values.dtype.name}. Return real "
                "values, such as tf.abs(y_pred - y_true)."
            )
        return values

    return of_real_values


def copied(metric: keras.metrics.Metric) -> keras.metrics.Metric:
    """A metric of its own for one split, with variables in the strategy's scope, at its start.

    It is copied attribute by attribute: made again of its configuration, it would lose what a
    subclass leaves out of `get_config`. Layers in it are shared.

    Raises:
      ValueError: an attribute that cannot be copied; the message names it.
    """
    memo: dict[int, Any] = {}
    copy_of_it = _copied(metric, memo)
    if copy_of_it.variables:
        copy_of_it.reset_state()
    return copy_of_it


def _copied(metric, memo: dict):
    for variable in metric.variables:
        if id(variable) not in memo:
            memo[id(variable)] = keras.Variable(
                np.asarray(variable),
                dtype=variable.dtype,
                trainable=variable.trainable,
                aggregation=variable.aggregation,
                synchronization=variable.synchronization,
                name=variable.name,
            )
    memo[id(metric)] = result = object.__new__(type(metric))
    for value in _values(vars(metric)):
        if isinstance(value, keras.metrics.Metric) and id(value) not in memo:
            _copied(value, memo)
        elif isinstance(value, keras.Layer):
            memo[id(value)] = value
    for name, value in vars(metric).items():
        try:
            vars(result)[name] = copy.deepcopy(value, memo)
        except Exception as error:
            raise TermwiseError(
                f"metrics= holds a {type(metric).__name__} whose {name} cannot be copied "
                f"({type(error).__name__}: {error}). Training and evaluation need a metric each: "
                f"keep {name} outside the metric, as a global that its methods read."
            ) from error
    return result


def _named(metric) -> keras.metrics.Metric:
    """The metric that Keras knows by a name, or by a serialized configuration."""
    name = metric if isinstance(metric, str) else None
    try:
        made = keras.metrics.get(metric)
    except ValueError as error:
        raise TermwiseError(
            f"metrics= holds {metric!r}, which Keras does not know. Give a Keras metric's "
            "name, a function (y_true, y_pred), or a keras.metrics.Metric."
        ) from error
    if isinstance(made, keras.metrics.Metric):
        made.name = name or made.name  # "mae" is called "mae"
        return made
    return keras.metrics.MeanMetricWrapper(made, name=name)


def _by_shape(kind):
    """Keras's reading of "accuracy" and "crossentropy": by the shapes of label and output."""

    def function(y_true, y_pred):
        y_true, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        rank, last = y_true.shape.rank, y_true.shape[-1] if y_true.shape.rank else None
        if y_pred.shape[-1] == 1:
            form = "binary"
        elif rank < y_pred.shape.rank or (last == 1 and y_pred.shape[-1] > 1):
            form = "sparse_categorical"
        else:
            form = "categorical"
        return getattr(keras.metrics, f"{form}_{kind}")(y_true, y_pred)

    function.__name__ = kind
    return function


def as_list(metrics) -> list:
    """One metric or several as a list."""
    metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    return [metric for metric in metrics if metric is not None]


def check_nesting(metric, argument: str, outputs: dict) -> None:
    """Raises ValueError where a list of lists is given for one output."""
    if isinstance(metric, list):
        raise TermwiseError(
            f"{argument}= holds a list of lists, but the model has {len(outputs)} "
            f"output{'s' * (len(outputs) > 1)}. Give one list, or a dict by output."
        )


def refuse_complex(name: str, metric, label, output) -> None:
    """Raises TypeError where a metric would see only the real part of complex numbers."""
    dtypes = [getattr(tensor, "dtype", None) for tensor in tf.nest.flatten((label, output))]
    if any(isinstance(d, tf.DType) and d.is_complex for d in dtypes):
        kind = type(metric)
        if kind.__module__.startswith("keras."):
            raise TermwiseTypeError(
                f"Metric {name!r} is Keras's {kind.__name__}, which takes real numbers, but "
                "the label or output is complex. Give a function of (y_true, y_pred) that returns "
                "real values."
            )
