"""A teacher whose weights are the moving average of the model's, for a term that compares both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import keras
import tensorflow as tf

from losses.checks import number
from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective import Step, Term

FIRST, PER_UPDATE = 1.0, 10.0  # of the warm-up: (1 + t) / (10 + t)


@keras.saving.register_keras_serializable(package="termwise")
class MeanTeacher(Term):
    """A term that is given a teacher: the model with averaged weights.

        average = decay_t * average + (1 - decay_t) * weights      after each update of the weights
        decay_t = min(decay, (1 + t) / (10 + t))                   after t updates; decay_0 = 0

    So the average is the weights themselves after the first update, and spans about a tenth of the
    training until `decay` is reached. Before the first update the teacher is the model.

    All floating variables of the model are averaged alike: what trains, what is frozen (which stays
    as it is), and the moving statistics of batch normalisation, so that the teacher's statistics
    are as old as its weights. Integers, such as seeds, are the model's own. Accumulated steps are
    one update; a step that is skipped is none. An evaluation moves nothing. The averages are saved
    with the run, and alike on all replicas. They take as much memory as the model's weights.

    Args:
      fn: a function (step, teacher) that returns what a term may: values [examples], a scalar, a
        `Ratio`, or a dict of these. `teacher(x)` gives the teacher's outputs for inputs x in the
        structure of `step.x`, without gradient, by a pass that changes nothing in the model:
        without dropout, and with the averaged statistics. `teacher(x, training=True)` draws as
        `step.forward` does.
      name: str; the function's own name by default (a lambda needs one).
      decay: float in [0, 1), reached after about 9 / (1 - decay) updates.
      weight, trains, source, hardest: as in `Term`.
    Raises:
      ValueError: decay outside its range; a lambda without a name.
      TypeError: `fn` is no function.
    Source: Tarvainen and Valpola 2017 (mean teachers); the warm-up is that of
      `tf.train.ExponentialMovingAverage(num_updates=)`.

    Example: how far the model's predictions are from the teacher's.
      >>> def consistency(step, teacher):
      ...     return tf.reduce_sum(tf.square(step.y_pred - teacher(step.x)), axis=-1)
      >>> MeanTeacher(consistency, decay=0.99, weight=8.0).name
      'consistency'
    """

    def __init__(
        self,
        fn: Callable,
        name: str | None = None,
        *,
        decay: float = 0.999,
        weight=1.0,
        trains=None,
        source: str | None = None,
        hardest: float | None = None,
    ):
        if not callable(fn):
            raise TermwiseTypeError(
                f"losses.MeanTeacher takes a function (step, teacher), received {fn!r}."
            )
        name = name or getattr(fn, "__name__", type(fn).__name__)
        if name == "<lambda>":
            raise TermwiseError(
                'losses.MeanTeacher was given a lambda without a name. Pass name="...".'
            )
        super().__init__(weight, name, trains, source, hardest)
        accepted = "a decay from 0 and below 1, such as 0.999"
        self.decay = number("decay", decay, least=0, owner=self, accepted=accepted)
        number("decay", 1 - self.decay, above=0, owner=self, accepted=accepted)
        self.fn = fn
        self._averages: Averages | None = None

    def for_run(self) -> MeanTeacher:
        """The same term with averages of its own, made in the strategy's scope."""
        teacher = type(self)(**self.get_config())
        teacher._averages = Averages(self.name, self.decay)
        return teacher

    @property
    def averages(self) -> Averages:
        """Of this run. ValueError: the term is of no run."""
        if self._averages is None:
            raise TermwiseError(
                f"MeanTeacher {self.name!r} has averages in a run alone. Read those of the term of "
                "this name in trainer.terms."
            )
        return self._averages

    @property
    def variables(self) -> list:
        """Those of `Term`, and the averages."""
        return super().variables + (self._averages.variables if self._averages else [])

    @contextlib.contextmanager
    def averaged(self, model: keras.Model) -> Iterator[keras.Model]:
        """Within it the model has the teacher's weights: evaluate, predict or export it there.

        Between two calls of `fit`, not within one. An optimizer with use_ema=True puts its own
        averages into the model for an evaluation, and so over these.

        Args:
          model: the run's.

        Example: with trainer.terms[0].averaged(trainer.model): trainer.export("teacher")
        """
        values = self.averages.values(model)
        before = [(variable, tf.identity(variable.value)) for variable, _ in values]
        values = [(variable, tf.identity(value)) for variable, value in values]
        try:
            for variable, value in values:
                variable.assign(value)
            yield model
        finally:
            for variable, value in before:
                variable.assign(value)

    def call(self, step: Step):
        return self.fn(step, Teacher(step, self.averages))

    def get_config(self):
        return {**super().get_config(), "fn": self.fn, "decay": self.decay}


class Teacher:
    """The model with averaged weights, as a function of inputs, in one step."""

    def __init__(self, step: Step, averages: Averages):
        self._step, self._averages = step, averages

    def __call__(self, x, *, training: bool = False):
        """The outputs for x, in the structure of `step.y_pred`, without gradient.

        Args:
          x: inputs in the structure of `step.x`.
          training: whether layers run as in training.
        """
        values = self._averages.values(self._step.model)
        outputs = self._step.forward(x, training=training, values=values)
        return tf.nest.map_structure(tf.stop_gradient, outputs)


@dataclass
class AveragesState:
    """The variables of averages; none of them is trained.

    Attributes:
      updates: int64 [], how often they moved.
      averages: one for each floating variable of the model, in its order; empty before it is built.
    """

    updates: keras.Variable
    averages: list[keras.Variable] = field(default_factory=list)


class Averages:
    """The moving averages of a model's weights in one run.

    Args:
      name: of the term.
      decay: the largest.
    """

    def __init__(self, name: str, decay: float):
        self.name, self.decay = name, decay
        # one object further away than where a loop looks for statistics to average over replicas
        self.state = AveragesState(self._variable("updates", (), "int64"))

    def _variable(self, name: str, shape, dtype) -> keras.Variable:
        with keras.name_scope(self.name):
            return keras.Variable("zeros", shape=shape, dtype=dtype, trainable=False, name=name)

    @property
    def variables(self) -> list[keras.Variable]:
        return [self.state.updates, *self.state.averages]

    def allocate(self, model: keras.Model) -> None:
        """Makes the averages of a built model, once, in the scope of the run's strategy."""
        if not self.state.averages:
            self.state.averages = [
                self._variable(f"average_{place}", variable.shape, variable.dtype)
                for place, variable in enumerate(_floating(model))
            ]

    def pairs(self, model: keras.Model) -> list[tuple[keras.Variable, keras.Variable]]:
        """(variable, its average), of the floating variables of the model.

        Raises:
          ValueError: the model has other variables than when it was built.
        """
        variables, averages = _floating(model), self.state.averages
        if [v.shape for v in variables] != [a.shape for a in averages]:
            raise TermwiseError(
                f"MeanTeacher {self.name!r} averages {len(averages)} variables, and the model "
                f"{model.name!r} has {len(variables)}, or others. Build all its layers before it "
                "is trained."
            )
        return list(zip(variables, averages, strict=True))

    def values(self, model: keras.Model) -> list[tuple[keras.Variable, tf.Tensor]]:
        """(variable, the teacher's value of it); before the first update the model's own."""
        moved = tf.convert_to_tensor(self.state.updates) > 0
        return [
            (v, tf.where(moved, tf.convert_to_tensor(a), tf.convert_to_tensor(v.value)))
            for v, a in self.pairs(model)
        ]

    def present_decay(self) -> tf.Tensor:
        """float32 [], the decay of the next update."""
        t = tf.cast(tf.convert_to_tensor(self.state.updates), tf.float32)
        warm = tf.minimum(self.decay, (FIRST + t) / (PER_UPDATE + t))
        return tf.where(t > 0, warm, 0.0)


def teachers_of(terms: Iterable) -> list[MeanTeacher]:
    """The mean teachers among terms."""
    return [each for each in terms if isinstance(each, MeanTeacher)]


def _floating(model: keras.Model) -> list[keras.Variable]:
    return [v for v in model.variables if tf.as_dtype(v.dtype).is_floating]
