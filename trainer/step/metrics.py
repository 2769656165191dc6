"""Keras metrics by output: made in the strategy's scope, updated in the step, read at a window."""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective.outputs import by_output, match_labels, name_outputs


class Metrics:
    """The metrics of one split; training and evaluation have one each.

    Args:
      metrics: what `Model.compile(metrics=)` takes.
      output_names: the model's output names, where it has them.
    Raises:
      TypeError, ValueError: a metric that Keras does not know.
    """

    def __init__(self, metrics, output_names=None):
        self._structure = _resolve_all(metrics)
        self._output_names = output_names
        # output -> its metrics, as the first update finds them; "" where there is one output
        self._by_output: dict[str, list] = {}

    @property
    def metrics(self) -> list:
        return [metric for metric in tf.nest.flatten(self._structure) if metric is not None]

    @property
    def variables(self) -> list:
        return [variable for metric in self.metrics for variable in metric.variables]

    def update(self, y, y_pred) -> None:
        """Counts one replica's examples, inside the step."""
        if not self.metrics:
            return
        outputs = name_outputs(y_pred, self._output_names)
        matched = by_output(self._structure, outputs, "metrics")
        if list(outputs) == [""]:
            outputs = dict.fromkeys(matched, outputs[""])
        by_name = {name: _as_list(metrics) for name, metrics in matched.items()}
        by_name = {name: metrics for name, metrics in by_name.items() if metrics}
        labels = match_labels(y, outputs, list(by_name))
        self._by_output = {name if len(outputs) > 1 else "": m for name, m in by_name.items()}
        for name, metrics in by_name.items():
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
        for output, metrics in self._by_output.items():
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


def _as_list(metrics) -> list:
    metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    return [metric for metric in metrics if metric is not None]


def _resolve_all(metrics):
    if isinstance(metrics, dict):
        return {name: _resolve_all(metric) for name, metric in metrics.items()}
    if isinstance(metrics, (list, tuple)):
        return [_resolve_all(metric) for metric in metrics]
    return None if metrics is None else _resolve(metrics)


def _resolve(metric) -> keras.metrics.Metric:
    if isinstance(metric, keras.metrics.Metric):
        return copied(metric)
    if metric in ("accuracy", "acc", "crossentropy", "ce"):
        kind = "accuracy" if metric in ("accuracy", "acc") else "crossentropy"
        return keras.metrics.MeanMetricWrapper(_by_shape(kind), name=metric)
    if isinstance(metric, (str, dict)):
        return _named(metric)
    if callable(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        return keras.metrics.MeanMetricWrapper(metric, name="metric" if "<" in name else name)
    raise TermwiseTypeError(
        f"metrics= holds {metric!r}. Accepted: a name, a function (y_true, y_pred), a "
        "keras.metrics.Metric, or a list or dict of these by output."
    )


def copied(metric: keras.metrics.Metric) -> keras.metrics.Metric:
    """A metric of its own for one split, with variables in the strategy's scope, at its start.

    It is copied attribute by attribute: made again of its configuration, it would lose what a
    subclass leaves out of `get_config`.
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
    for value in vars(metric).values():
        if isinstance(value, keras.metrics.Metric) and id(value) not in memo:
            _copied(value, memo)
    vars(result).update(copy.deepcopy(vars(metric), memo))
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
