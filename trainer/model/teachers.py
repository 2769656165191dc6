"""The averages of a run's mean teachers: made with the model, moved once after each update."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tensorflow as tf

from losses.errors import TermwiseError
from losses.terms.mean_teacher import Averages, teachers_of
from trainer.model.variables import tensor_variable


def with_teachers(build: Callable) -> Callable:
    """A function that builds the model of a program, and then makes what teachers average.

    Args:
      build: (program, spec) builds the program's model.
    """

    def build_both(program, spec) -> None:
        build(program, spec)
        for teacher in teachers_of(program.objective.terms):
            with program.placement.strategy.scope():
                teacher.averages.allocate(program.model)

    return build_both


def move_teachers(terms: Iterable, model, strategy, due) -> None:
    """Moves the averages of each teacher towards the weights, in cross-replica context.

    Args:
      terms: of the run.
      model, strategy: the run's.
      due: bool [], whether the step has updated the weights.
    """
    for teacher in teachers_of(terms):
        _move(teacher.averages, model, strategy, due)


def check_teachers_moved(terms: Iterable, strategy, written: Callable[[], list]) -> None:
    """Raises ValueError where a `train_step` of a user's own does not move a teacher.

    Args:
      terms, strategy: the run's.
      written: () -> the `tf.Variable`s that the traced step writes.
    """
    teachers = teachers_of(terms)
    moved = {id(variable) for variable in written()} if teachers else set()
    for teacher in teachers:
        updates = tensor_variable(teacher.averages.state.updates)
        parts = strategy.experimental_local_results(updates)
        if moved.isdisjoint(map(id, parts)):
            raise TermwiseError(
                f"train_step() never moves the mean teacher {teacher.name!r}. Call "
                "self.apply_gradients(gradients, record) in it."
            )


def _move(averages: Averages, model, strategy, due) -> None:
    decay = tf.where(due, averages.present_decay(), 1.0)

    def move(mine, weight, decay):
        # in the average's own dtype; a decay of 1 leaves it as it is, bit for bit
        decay = tf.cast(decay, mine.dtype)
        mine.assign(decay * mine + (1.0 - decay) * tf.cast(weight, mine.dtype))

    for weight, average in averages.pairs(model):
        strategy.extended.update(
            tensor_variable(average), move, args=(tensor_variable(weight), decay)
        )
    updates = averages.state.updates
    updates.assign(tf.convert_to_tensor(updates) + tf.cast(due, tf.int64))
