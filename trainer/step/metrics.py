"""Keras metrics by output: made in the strategy's scope, updated in the step, read at a window."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.layers import stable_path
from losses.naming import own_name
from losses.objective.compiled import keys_are_sources
from losses.objective.outputs import by_output, match_labels, match_weights, name_outputs
from losses.objective.step import Step
from trainer.model.metrics import (
    as_list,
    check_nesting,
    of_keras,
    refuse_complex,
    resolved_metrics,
)
from trainer.model.variables import free_name, put_back, tensor_variable

_MADE_LATE = (
    "metrics= holds a metric that makes its variables at the first update. What XLA compiles for "
    "several replicas cannot wait for that: pass jit_compile=False, or update the metric once "
    "before you pass it."
)


class OutputMetric(NamedTuple):
    """One metric of one output of the model; `name` stands in rows, before a dict's own names."""

    name: str
    output: str
    metric: keras.metrics.Metric
    weighted: bool


class Metrics:
    """The metrics of one split; training and evaluation have one each.

    Args:
      metrics, weighted: what `Model.compile(metrics=, weighted_metrics=)` takes.
      output_names: the model's output names, where it has them.
      held: () -> metrics that the model's layers hold, and update themselves.
      names: () -> `stable_names` of the model's layers.
    Attributes:
      outputs: the metrics by output; None before the first update, which finds them once.
      held: those that layers hold, of which the first trace has updated some part.
    Raises:
      TypeError, ValueError: a metric that Keras does not know.
    """

    def __init__(
        self,
        metrics,
        output_names=None,
        *,
        weighted=None,
        of_layers: Callable[[], list] = lambda: [],
        names: Callable[[], Mapping[str, str]] = dict,
    ):
        self._given = {
            "metrics": resolved_metrics(metrics),
            "weighted_metrics": resolved_metrics(weighted),
        }
        self._output_names = output_names
        self._held_by_layers = of_layers
        self._names = names
        self._of_source: dict[str, Metrics] = {}  # where they are given by source
        self.outputs: tuple[OutputMetric, ...] | None = None
        self.held: tuple[keras.metrics.Metric, ...] | None = None

    @property
    def metrics(self) -> list:
        """All that are logged."""
        return [*self._own, *(self.held or ())]

    @property
    def _own(self) -> list:
        return [metric for metric in tf.nest.flatten(self._given) if metric is not None]

    @property
    def variables(self) -> list:
        """Those of the metrics that were given, as a checkpoint holds them."""
        return [variable for metric in self._own for variable in metric.variables]

    def count(self, step: Step, present) -> None:
        """Counts one replica's examples, inside the step, but for padding.

        Args:
          step: with its outputs.
          present: float32 [], 0 where the examples are padding; None: they are not.
        """
        by_argument = {key: metrics for key, metrics in self._given.items() if metrics is not None}
        if by_argument and all(keys_are_sources(metrics, step) for metrics in by_argument.values()):
            self._count_sources(by_argument, step)
        else:
            self._count(step, present)

    def _count_sources(self, by_argument: Mapping, step: Step) -> None:
        """Counts the examples of each source by the metrics that are given for it."""
        lines: list[OutputMetric] = []
        for source, other in step.sources.items():
            structures = {
                key: metrics[source] for key, metrics in by_argument.items() if source in metrics
            }
            if not structures:
                continue
            if source not in self._of_source:
                self._of_source[source] = self._made_for(source, structures, other)
            metrics = self._of_source[source]
            metrics._count(other, other.present)
            for line in metrics.outputs or ():
                front = "" if line.name.startswith(f"{source}_") else f"{source}_"
                lines.append(line._replace(name=front + line.name))
        self.outputs = tuple(lines)

    def _made_for(self, source: str, structures: dict, step: Step) -> Metrics:
        """The metrics of one source; of several outputs that which is called as the source."""
        if len(name_outputs(step.y_pred, self._output_names)) > 1:
            structures = {
                key: metrics if isinstance(metrics, dict) else {source: metrics}
                for key, metrics in structures.items()
            }
        metrics = copy.copy(self)
        metrics._given, metrics.outputs = structures, None
        return metrics

    def _count(self, step: Step, present) -> None:
        counted = step.y, step.y_pred, step.sample_weight
        if present is None or not self._own:
            self.update(*counted)
            return
        self._settle(counted)  # outside the branch: variables are made there

        def update():
            self.update(*counted)
            return tf.constant(True)

        tf.cond(present > 0, update, lambda: tf.constant(False))

    def update(self, y, y_pred, sample_weight=None) -> None:
        """Counts one replica's labels and outputs."""
        if self._own:
            self._settle((y, y_pred, sample_weight))
            self._update(self.outputs or (), y, y_pred, sample_weight)

    def _settle(self, counted: tuple) -> None:
        """Notes which metric belongs to which output, and has those without variables make them.

        Args:
          counted: y, y_pred, sample_weight.
        Raises:
          ValueError: metrics that do not fit the outputs, or other outputs than before.
        """
        lines = self._by_output(name_outputs(counted[1], self._output_names))
        if self.outputs is None:
            _make_variables([line.metric for line in lines], lambda: self._trial(lines, counted))
            self.outputs = lines
        elif [line[:2] for line in lines] != [line[:2] for line in self.outputs]:
            raise TermwiseError(
                f"This data has metrics {', '.join(line.name for line in lines)}, but the run has "
                f"{', '.join(line.name for line in self.outputs)}. Use another Trainer."
            )

    def _by_output(self, outputs: dict) -> tuple[OutputMetric, ...]:
        lines: list[OutputMetric] = []
        taken: list[str] = []
        for argument, structure in self._given.items():
            names = {} if isinstance(structure, dict) else self._names()
            for output, metrics in by_output(structure, outputs, argument).items():
                for metric in as_list(metrics):
                    check_nesting(metric, argument, outputs)
                    front = f"{stable_path(output, names)}_" if len(outputs) > 1 else ""
                    name, weighted = own_name(metric), argument == "weighted_metrics"
                    if weighted and front + name in taken:
                        name = f"weighted_{name}"
                    taken.append(front + name)
                    lines.append(OutputMetric(front + name, output, metric, weighted))
        return tuple(lines)

    def _update(self, lines: Iterable[OutputMetric], y, y_pred, sample_weight) -> None:
        outputs = name_outputs(y_pred, self._output_names)
        used = list(dict.fromkeys(line.output for line in lines))
        if list(outputs) == [""]:
            outputs = dict.fromkeys(used, outputs[""])
        labels = match_labels(y, outputs, used)
        weights = match_weights(sample_weight, outputs, used)
        for line in lines:
            label, output = labels[line.output], outputs[line.output]
            refuse_complex(line.name, line.metric, label, output)
            weighted = {"sample_weight": weights[line.output]} if line.weighted else {}
            line.metric.update_state(label, output, **weighted)

    def _trial(self, lines, counted: tuple) -> None:
        """An update that is traced, and changes nothing; in cross-replica context."""
        flat = tf.nest.flatten(counted, expand_composites=True)

        def update(*tensors):
            parts = iter(tensors)
            whole = [next(parts) if tf.is_tensor(part) else part for part in flat]
            self._update(lines, *tf.nest.pack_sequence_as(counted, whole, expand_composites=True))

        specs = [tf.TensorSpec.from_tensor(part) for part in flat if tf.is_tensor(part)]
        with keras.StatelessScope():  # whose end makes the variables that were asked for
            tf.function(update, autograph=False).get_concrete_function(*specs)

    def results(self) -> dict[str, float]:
        """name -> value since the last reset; `<output>_<metric>` with several outputs."""
        return {name: float(np.asarray(value)) for name, value in self.tensors().items()}

    def tensors(self) -> dict[str, Any]:
        """The same as scalars of the metrics' own kind; in a graph too."""
        named = [(line.name, line.metric) for line in self.outputs or ()]
        named += [(own_name(metric), metric) for metric in self.held or ()]
        results: dict[str, Any] = {}
        for name, metric in named:
            for key, value in _scalars(name, metric.result()):
                results[free_name(key, results)] = value
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
        return all(map(of_keras, self.metrics))

    def settle_held(self, strategy, variables: Iterable[tf.Variable]) -> None:
        """Notes which metrics of layers a trace has updated, once.

        Args:
          strategy: the run's.
          variables: what the traced function reads or writes.
        """
        if self.held is not None:
            return
        traced = {id(variable) for variable in variables}
        self.held = tuple(
            metric
            for metric in self._held_by_layers()
            if any(id(part) in traced for part in _parts(strategy, metric))
        )

    @contextlib.contextmanager
    def set_aside(self, strategy) -> Iterator[None]:
        """Around passes of another split: what layers hold goes on afterwards where it stood."""
        parts = [part for metric in self.held or () for part in _parts(strategy, metric)]
        with put_back(parts):
            yield

    @contextlib.contextmanager
    def without_padding(self, present) -> Iterator[None]:
        """Around a replica's pass: what layers hold does not count examples that are padding."""
        metrics = [] if present is None else self._held_by_layers()
        variables = [tensor_variable(v) for metric in metrics for v in metric.variables]
        before = [_read(variable) for variable in variables]
        yield
        for variable, value in zip(variables, before, strict=True):
            now = tf.where(present > 0, _read(variable), value)
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=now)


def _read(variable) -> tf.Tensor:
    """A variable's value on this replica; the graph does not list it among what a step reads."""
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)


def _parts(strategy, metric) -> list:
    """The replicas' parts of a metric's variables, on this host."""
    results = strategy.experimental_local_results
    return [part for v in metric.variables for part in results(tensor_variable(v))]


def _make_variables(metrics, trial: Callable[[], None]) -> None:
    """Has metrics that make variables at their first update make them on every replica alike.

    In replica context; with one replica the first update itself may.

    Raises:
      ValueError: where XLA compiles each replica's part alone.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1 or all(map(_complete, metrics)):
        return

    def make(strategy):
        with tf.init_scope(), strategy.scope():
            trial()

    before = _variable_counts(metrics)
    try:
        context.merge_call(make)
    except RuntimeError as error:
        if "merge_call" not in str(error):
            raise
        with tf.init_scope():  # XLA compiles this replica's part alone: no other can be waited for
            trial()
        if _variable_counts(metrics) != before:
            raise TermwiseError(_MADE_LATE) from None


def _variable_counts(metrics) -> list[int]:
    return [len(metric.variables) for metric in metrics]


def _complete(metric) -> bool:
    """Whether a metric is known to have all its variables from the start."""
    kinds = keras.metrics.Mean, keras.metrics.Sum
    return isinstance(metric, kinds) and of_keras(metric)


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
