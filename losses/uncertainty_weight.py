"""A trainable weight of one term, which learns from the size of the term itself."""

from __future__ import annotations

import tensorflow as tf

from losses.checks import number
from losses.errors import TermwiseError
from losses.objective import Parameter


class UncertaintyWeight:
    """A weight learned from the term's own noise.

        regression:      weighted = exp(-s) * raw / 2,  uncertainty/<term> = s / 2
        classification:  weighted = exp(-s) * raw,      uncertainty/<term> = s / 2

    The log-variance s is a loss parameter; the objective adds s / 2 as a term of its own, so
    that the total stays the sum of weighted terms.

    Args:
      kind: "regression" or "classification".
      init: float, the initial log-variance.
    Raises:
      ValueError: an unknown kind, or `init` is not finite.
    Source: Kendall, Gal, Cipolla 2018, eq. 7 and 10; here the parameter is s = log(sigma^2).

    Example:
      >>> weight = UncertaintyWeight(init=0.0)
      >>> float(weight(0)), float(weight.penalty())
      (0.5, 0.0)
    """

    def __init__(self, kind="regression", init=0.0):
        if kind not in ("regression", "classification"):
            raise TermwiseError(
                f"UncertaintyWeight(kind={kind!r}): accepted are 'regression' and 'classification'."
            )
        self.kind = kind
        self.init = number("init", init, owner=self, accepted="a finite log-variance")
        self.log_variance = Parameter("log_variance", self.init)

    def __call__(self, step):
        scale = 0.5 if self.kind == "regression" else 1.0
        return scale * tf.exp(-tf.convert_to_tensor(self.log_variance))

    def penalty(self) -> tf.Tensor:
        """float32 [], what the weight adds to the objective of its own."""
        return 0.5 * tf.convert_to_tensor(self.log_variance)

    def get_config(self) -> dict:
        """The arguments that make this weight again."""
        return {"kind": self.kind, "init": self.init}

    @classmethod
    def from_config(cls, config):
        """The weight of a `get_config()`."""
        return cls(**config)

    def __repr__(self):
        return f"UncertaintyWeight({self.kind})"
