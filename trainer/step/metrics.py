"""Keras metrics by output: made in the strategy's scope, updated in the step, read at a window."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective.outputs import by_output, match_labels, name_outputs


class Metrics:
    """The metrics of one split; training and evaluation have one each.

    Args:
      given: what `Model.compile(metrics=)` takes.
      output_names: the model's output names, where it has them.
    Raises:
      TypeError, ValueError: a metric that Keras does not know.
    """

    def __init__(self, given, output_names=None):
        self._given = _resolve_all(given)
        self._output_names = output_names
        self._by_output = None

    @property
    def metrics(self) -> list:
        return [metric for metric in tf.nest.flatten(self._given) if metric is not None]

    @property
    def variables(self) -> list:
        return [variable for metric in self.metrics for variable in metric.variables]

    def update(self, y, y_pred) -> None:
        """Counts one replica's examples, inside the step."""
        if not self.metrics:
            return
        outputs = name_outputs(y_pred, self._output_names)
        found = by_output(self._given, outputs, "metrics")
        if list(outputs) == [""]:
            outputs = dict.fromkeys(found, outputs[""])
        found = {name: _as_list(given) for name, given in found.items()}
        found = {name: given for name, given in found.items() if given}
        labels = match_labels(y, outputs, list(found))
        self._by_output = {name if len(outputs) > 1 else "": m for name, m in found.items()}
        for name, metrics in found.items():
            for metric in metrics:
                if isinstance(metric, list):
                    raise TermwiseError(
                        f"metrics= holds a list of lists, but the model has {len(outputs)} "
                        f"output{'s' * (len(outputs) > 1)}. Give one list, or a dict by output."
                    )
                metric.update_state(labels[name], outputs[name])

    def count(self, y, y_pred, present) -> None:
        """`update`, but for padding examples: where `present`, float32 [], is 0, or None."""
        if present is None:
            self.update(y, y_pred)
            return

        def update():
            self.update(y, y_pred)
            return tf.constant(True)

        if self.metrics:
            tf.cond(present > 0, update, lambda: tf.constant(False))

    def results(self) -> dict[str, float]:
        """name -> value since the last reset; `<output>_<metric>` with several outputs."""
        return {name: float(np.asarray(value)) for name, value in self.tensors().items()}

    def tensors(self) -> dict[str, Any]:
        """The same as scalars of the metrics' own kind; in a graph too."""
        results: dict[str, Any] = {}
        for output, metrics in (self._by_output or {}).items():
            for metric in metrics:
                name = f"{output}_{metric.name}" if output else metric.name
                for key, value in _scalars(name, metric.result()):
                    results[_unused(key, results)] = value
        return results

    def reset(self) -> None:
        for metric in self.metrics:
            metric.reset_state()

    def reset_where(self, wanted) -> None:
        """Resets them where `wanted`, bool [], is true; in a graph."""
        if not self.metrics:
            return

        def reset():
            self.reset()
            return tf.constant(True)

        tf.cond(wanted, reset, lambda: tf.constant(False))

    @property
    def traceable(self) -> bool:
        """Whether they can be read and reset in a graph: Keras's own can."""
        return all(type(metric).__module__.startswith("keras.") for metric in self.metrics)


def _scalars(name: str, result):
    """(name, []) of a metric's result: of a dict by its keys, of a tensor by `<name>/<index>`."""
    if isinstance(result, dict):
        for key, value in result.items():
            yield from _scalars(str(key), value)
        return
    value = tf.convert_to_tensor(result)
    if value.shape.rank == 0:
        yield name, value
        return
    for index, element in enumerate(tf.unstack(tf.reshape(value, [-1]))):
        yield f"{name}/{index}", element


def _unused(name, results):
    count, free = 1, name
    while free in results:
        free, count = f"{name}_{count}", count + 1
    return free


def _as_list(given):
    given = given if isinstance(given, (list, tuple)) else [given]
    return [metric for metric in given if metric is not None]


def _resolve_all(given):
    if isinstance(given, dict):
        return {name: _resolve_all(one) for name, one in given.items()}
    if isinstance(given, (list, tuple)):
        return [_resolve_all(one) for one in given]
    return None if given is None else _resolve(given)


def _resolve(given) -> keras.metrics.Metric:
    if isinstance(given, keras.metrics.Metric):
        # made again, so that its variables belong to the strategy and to one split
        return type(given).from_config(given.get_config())
    if given in ("accuracy", "acc", "crossentropy", "ce"):
        kind = "accuracy" if given in ("accuracy", "acc") else "crossentropy"
        return keras.metrics.MeanMetricWrapper(_by_shape(kind), name=given)
    if isinstance(given, (str, dict)):
        return _named(given)
    if callable(given):
        name = getattr(given, "__name__", type(given).__name__)
        return keras.metrics.MeanMetricWrapper(given, name="metric" if "<" in name else name)
    raise TermwiseTypeError(
        f"metrics= holds {given!r}. Accepted: a name, a function (y_true, y_pred), a "
        "keras.metrics.Metric, or a list or dict of these by output."
    )


def _named(given) -> keras.metrics.Metric:
    """The metric that Keras knows by a name, or by a serialized configuration."""
    name = given if isinstance(given, str) else None
    try:
        metric = keras.metrics.get(given)
    except ValueError as error:
        raise TermwiseError(
            f"metrics= holds {given!r}, which Keras does not know. Give a Keras metric's "
            "name, a function (y_true, y_pred), or a keras.metrics.Metric."
        ) from error
    if isinstance(metric, keras.metrics.Metric):
        metric.name = name or metric.name  # "mae" is called "mae"
        return metric
    return keras.metrics.MeanMetricWrapper(metric, name=name)


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
