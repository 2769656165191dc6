"""The hardest share of a batch: which terms learn from it alone, and which examples these are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import tensorflow as tf

from losses.checks import share_of_batch
from losses.distributed import gather_examples
from losses.errors import TermwiseError
from losses.naming import suggestion
from losses.objective import Objective, Ratio, heads


@dataclass(frozen=True)
class Hardest:
    """What `fit(hardest=)` asks for.

    Attributes:
      compiled: the share of a batch that each compiled loss keeps; None: all.
      by_name: (term or what it is a part of, share) pairs.
    """

    compiled: float | None = None
    by_name: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(cls, hardest) -> Hardest:
        """Of what the user gave: None, a share, or a dict of shares by term.

        Raises:
          ValueError: something else, or a share outside of (0, 1].

        Example:
          >>> Hardest.of({"ce": 0.25}).by_name
          (('ce', 0.25),)
        """
        if hardest is None:
            return cls()
        if isinstance(hardest, Mapping):
            shares = {name: share_of_batch(v, f"hardest[{name!r}]") for name, v in hardest.items()}
            return cls(None, tuple(shares.items()))
        return cls(share_of_batch(hardest))

    def shares(self, objective: Objective, names: Iterable[str], known=()) -> dict[str, float]:
        """The shares of some terms by name: what names a term, its own, that of compiled losses.

        Args:
          objective: whose terms have shares of their own.
          names: the terms.
          known: names of further terms, which the step at hand does not have.
        Raises:
          ValueError: a name that is no term's, or a share of the compiled losses where none is.
        """
        names, asked = list(names), dict(self.by_name)
        compiled = [loss.name for loss in objective.resolved.compiled or ()]
        if self.compiled is not None:
            if not compiled:
                raise TermwiseError(
                    f"hardest={self.compiled:g} is for the compiled losses, and there is no loss=. "
                    f"Name the terms: hardest={{{names[0]!r}: {self.compiled:g}}}."
                )
            asked = {**dict.fromkeys(compiled, self.compiled), **asked}
        of_terms = {term.name: term.hardest for term in objective.terms if term.hardest is not None}
        asked = {**of_terms, **asked}
        there = {place for name in (*names, *known) for place in (name, *heads(name))}
        for name in asked:
            if name not in there:
                raise TermwiseError(
                    f"hardest= names term {name!r}; the terms are "
                    f"{', '.join(map(repr, names))}.{suggestion(name, names)}"
                )
        places = {name: [p for p in (name, *heads(name)) if p in asked] for name in names}
        return {name: asked[places[name][0]] for name in names if places[name]}


def keep_hardest(name: str, ratio: Ratio, share: float) -> Ratio:
    """A term of the hardest examples of the global batch alone.

        kept = the ceil(share * n) examples of the largest value, of the n that count
        value = the term's value of a batch of these examples

    The examples of all replicas are compared, without gradient. Of two of one value the first is
    the harder; what is not finite is the hardest of all, so that it is not lost. What a mask or a
    sample weight of 0 leaves out is never kept.

    Args:
      name: the term's, for the error.
      ratio: the term, with values of its examples.
      share: of the examples that count.
    Raises:
      ValueError: no example has a value of the term.
    Source: Shrivastava et al. 2016, online hard example mining.

    Example:
      >>> hardest = keep_hardest("ce", Ratio.of_examples([1.0, 4.0, 3.0, 2.0]), 0.5)
      >>> float(hardest.value())                                      # (4 + 3) / 2
      3.5
    """
    if ratio.without_examples is not None:
        raise TermwiseError(
            f"hardest= is for terms with a value of each example, and term {name!r} has none: "
            f"{ratio.without_examples}. Name those that have: hardest={{'<term>': {share:g}}}."
        )
    parts = ratio.by_example()
    counted = tf.ones_like(parts.numerators, tf.bool) if parts.counted is None else parts.counted
    if parts.counts is not None:
        counted &= tf.not_equal(parts.counts, 0)
    chosen = _chosen(tf.stop_gradient(tf.cast(parts.values, tf.float32)), counted, share)
    values = tf.convert_to_tensor(ratio.values)
    beside = tf.reshape(chosen, [-1] + [1] * (values.shape.rank - 1))
    values = tf.where(beside, values, tf.zeros_like(values))
    counts, denominator = ratio.counts, None
    if ratio.denominator is not None:
        counts = tf.broadcast_to(tf.cast(counts, values.dtype), tf.shape(values))
        counts = tf.where(beside, counts, tf.zeros_like(counts))
        denominator = tf.cast(tf.reduce_sum(counts), ratio.denominator.dtype)
    numerator = tf.cast(tf.reduce_sum(values), ratio.numerator.dtype)
    of_values = {"values": values, "counts": counts, "weights": ratio.weights}
    return Ratio(numerator, denominator, present=ratio.present, **of_values)


def _chosen(values, counted, share: float) -> tf.Tensor:
    """bool [examples], which examples of this replica are among the hardest of the global batch."""
    keys = tf.where(tf.math.is_finite(values), values, float("inf"))
    keys = tf.where(counted, keys, -float("inf"))
    (keys, of_all), first = gather_examples((keys, counted))
    order = tf.argsort(keys, direction="DESCENDING", stable=True)
    # a replica whose examples are padding has none among those that were gathered
    ranks = tf.concat([tf.math.invert_permutation(order), tf.shape(values) + tf.size(keys)], 0)
    count = tf.shape(values)[0]
    places = tf.minimum(first + tf.range(count), tf.size(keys))
    return counted & (tf.gather(ranks, places) < _number(of_all, share))


def _number(counted, share: float) -> tf.Tensor:
    """int32 [], ceil(share * examples that count): of the decimal that was written, exactly."""
    fraction = Fraction(str(share)).limit_denominator(10**6)
    count = tf.math.count_nonzero(counted, dtype=tf.int64)
    number_kept = (count * fraction.numerator + fraction.denominator - 1) // fraction.denominator
    return tf.cast(number_kept, tf.int32)
