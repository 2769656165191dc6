"""What more weight of each term would do for the validation objective, every so many steps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective import heads
from losses.objective.layout import Layout
from losses.objective.objective import Objective
from trainer.balancing.diagnostics import Diagnostics
from trainer.balancing.jacobian import stacked
from trainer.data.batch import is_whole
from trainer.distributed.reduce import sum_in_replica
from trainer.model.variables import tensor_variable
from trainer.step.forward import stateless_forward
from trainer.step.program import StepProgram


class Helps:
    """What a term does for validation, to first order.

    An update w' = w - rate P sum_t weight_t g_t has, by the chain rule, the effect

        dV(w') / d weight_t = - rate <dV/dw(w'), P g_t>,    here with dV/dw at w,

    on the validation objective V: below 0 more weight of the term lowers V, it helps; above 0 it
    harms. g_t is the gradient of the term's raw value over the last training batch, P what the
    optimizer scales a gradient by (`trainer.optimizers.step_sizes`). The product is taken with each
    batch of the validation data; the mean over the batches stands in the row, by their examples,
    and its standard error beside it.

    Args:
      every: int, steps between two measurements.
      chosen: of `helps_for`: the terms that are the validation objective; None: compiled losses.
      layout: the T terms.
    Source: Du et al. 2018 (auxiliary losses by gradient similarity); Lin et al. 2019 (weights of
      auxiliary tasks online); Baydin et al. 2018 (hypergradients).
    """

    def __init__(self, every: int, chosen, layout: Layout):
        self.every, self.chosen, self.names = every, chosen, layout.names
        self._measured = tf.Variable(np.zeros([2, len(layout.names)]), trainable=False)
        self._at = tf.Variable(-1, dtype=tf.int64, trainable=False)

    @property
    def variables(self) -> list:
        """What a checkpoint holds of it."""
        return [self._measured, self._at]

    def next_stop(self, step: int) -> int:
        """The step after `step` at which it is measured: before the last of each `every`."""
        return step + self.every - (step + 1) % self.every

    def due(self, step: int) -> bool:
        """Whether it is measured between `step` steps and the next."""
        return (step + 1) % self.every == 0

    def keep(self, products: np.ndarray, examples: np.ndarray, step: int) -> None:
        """Keeps what was measured after `step` steps, for the row of the next one.

        Args:
          products: [B, T], of B batches of validation data; examples: [B].
        """
        share = examples / examples.sum()
        mean = share @ products
        error = np.full(len(mean), np.nan)
        if len(products) > 1:
            spread = np.square(share[:, None] * (products - mean)).sum(0)
            error = np.sqrt(spread * len(products) / (len(products) - 1))
        self._measured.assign(np.stack([mean, error]))
        self._at.assign(step + 1)

    @property
    def size(self) -> int:
        """The length of what `packed` makes."""
        return 1 + 2 * len(self.names)

    def packed(self) -> tf.Tensor:
        """float64 [size], the last measurement: its step, means and errors; in a graph."""
        return tf.concat(
            [[tf.cast(self._at, tf.float64)], tf.reshape(self._measured, [-1])], axis=0
        )

    def values(self, packed: np.ndarray, first: int, last: int) -> dict[str, float]:
        """`helps/*` and `helps_error/*`, if measured for a step from first to last."""
        if not first <= packed[0] <= last:
            return {}
        means, errors = np.reshape(packed[1:], [2, -1]).tolist()
        row = {f"helps/{name}": mean for name, mean in zip(self.names, means, strict=True)}
        pairs = zip(self.names, errors, strict=True)
        return {**row, **{f"helps_error/{name}": error for name, error in pairs}}


def helps_of(asked: tuple, program: StepProgram, before: Helps | None) -> Helps | None:
    """That of the program's terms: the one before, where these are its terms.

    Args:
      asked: `helps_every` and `helps_for` of the Trainer.
    Raises:
      ValueError: `helps_for` names what is no term, or terms that all weigh 0.
    """
    every, chosen = asked
    if every is None:
        return None
    layout, objective = program.layout, program.objective
    names = validation_terms(objective, layout, chosen)
    if all(weight == 0 for weight in objective.constant_weights(names).values()):
        raise TermwiseError(
            f"helps_every= looks at the validation of {', '.join(map(repr, names))}, of weight 0: "
            "nothing would help. Name terms that count by helps_for=."
        )
    return before if before and before.names == layout.names else Helps(every, chosen, layout)


class Measured:
    """What is measured beside the steps, of which a row tells: diagnostics, helps, or both."""

    def __init__(self, diagnostics: Diagnostics | None, helps: Helps | None):
        self._diagnostics = diagnostics
        self._parts = [part for part in (diagnostics, helps) if part is not None]

    @property
    def size(self) -> int:
        """The length of what `packed` makes."""
        return sum(part.size for part in self._parts)

    def packed(self) -> tf.Tensor | None:
        """float64 [size], the last measurements; in a graph. None where there are none."""
        return tf.concat([part.packed() for part in self._parts], 0) if self._parts else None

    def read(self, packed: np.ndarray, first: int, last: int) -> tuple[dict, np.ndarray | None]:
        """What was measured from step first to last, by tag, and the picture of the cosines."""
        values: dict[str, float] = {}
        picture, start = None, 0
        for part in self._parts:
            of_part = packed[start : start + part.size]
            start += part.size
            now = part.values(of_part, first, last)
            if now and part is self._diagnostics:
                picture = self._diagnostics.picture(of_part)
            values.update(now)
        return values, picture


def validation_terms(objective: Objective, layout: Layout, chosen=None) -> list[str]:
    """The terms that are the validation objective: those of `helps_for`, else the compiled losses.

    Where there are none, all terms.

    Raises:
      ValueError: a name that is no term's.
    """
    names: Iterable[str] = [loss.name for loss in objective.resolved.compiled or ()]
    if chosen is not None:
        names = [chosen] if isinstance(chosen, str) else list(chosen)
    chosen_terms = [n for n in layout.names if {n, *heads(n)}.intersection(names)]
    known = {place for name in layout.names for place in (name, *heads(name))}
    for name in names:
        if name not in known:
            raise TermwiseError(
                f"helps_for= names term {name!r}; the terms are "
                f"{', '.join(map(repr, layout.names))}."
            )
    return chosen_terms or list(layout.names)


def probe_validation(program: StepProgram, chosen, batch, present, valid=None):
    """The gradient of the validation objective over a batch, by the variables that train.

    The pass is that of an evaluation, and changes nothing.

    Args:
      program: what is traced.
      chosen: of `helps_for`.
      batch, present: of `Placement.shard`.
      valid: float32 [], 0 where this host's data has ended and the batch counts for nothing.
    Returns:
      path -> gradient, to be summed over the replicas; float32 [], the examples over all of them.
    """
    if valid is not None:
        present = valid if present is None else present * valid
    with tf.GradientTape() as tape:
        tape.watch(program.hidden)
        forward = stateless_forward(program, batch, present, training=False)
        layout, size = forward.layout, forward.layout.size
        with tape.stop_recording():
            sums = sum_in_replica(forward.sums(present))
            names = validation_terms(program.objective, layout, chosen)
            mask = tf.constant([float(name in names) for name in layout.names])
            weights = program.objective.weights(layout.names, forward.step.step) * mask
            _, cotangents = layout.raw_and_cotangents(
                sums[:size], sums[size : 2 * size], weights, layout.absent(sums)
            )
        share = tf.reduce_sum(cotangents * forward.numerators)
    trainables = program.trainables
    sources = {p: tensor_variable(trainables.variables[p]) for p in trainables.owners}
    gradients = tape.gradient(share, list(sources.values()))
    of_path = zip(sources.items(), gradients, strict=True)
    by_path = {path: stacked([gradient], source)[0] for (path, source), gradient in of_path}
    return by_path, sums[-2]


def check_helps(every, chosen) -> None:
    """Raises ValueError where `helps_every=` is no interval, or `helps_for=` has none."""
    if every is not None and (not is_whole(every) or every < 2):
        raise TermwiseError(f"helps_every={every!r}: give a whole number of at least 2, or None.")
    if every is None and chosen is not None:
        raise TermwiseError(f"helps_for={chosen!r} goes with helps_every=, which is not given.")
