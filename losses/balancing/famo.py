"""FAMO: all losses fall at the same relative rate, from their values alone."""

from __future__ import annotations

import tensorflow as tf

from losses.balancing.balancer import ValuesBalancer
from losses.balancing.numerics.safe_math import check_points, double, finite, points
from losses.checks import number
from losses.errors import TermwiseError

EPSILON = 1e-8  # added to each loss before its logarithm
DECAY_1, DECAY_2 = 0.9, 0.999  # of Adam's moments


class FAMO(ValuesBalancer):
    """Fast adaptive multitask optimization: the terms whose logarithm fell least gain weight.

        z     = softmax(x)
        w_i   = (z_i / D_i) / sum_j (z_j / D_j),          D_i = L_i - b_i + 1e-8
        delta = log D(before) - log D(after)
        x    <- x - learning_rate step(J_z' delta + gamma x)

    L_i is the value of term i, b_i the least it can be, x the logits, J_z the softmax's Jacobian.
    The weights sum to 1. Values below b_i count as b_i.

    `before` and `after` are losses of one batch before and after an update of the model. A training
    loop sees each batch once, so `weights` and `next_state` take the values of consecutive steps
    instead: `weights` first moves x by what changed since the last step. On a fixed batch
    this is the paper's algorithm; otherwise the change of batch is noise in delta. Where the losses
    are computed twice, call `update(state, before, after)` and not `next_state`.

    Args:
      gamma: float >= 0, the decay of the logits.
      learning_rate: float >= 0, of the logits.
      optimizer: "adam", step(g) = Adam's direction, as in the authors' code; or "sgd", step(g) = g,
        the paper's equation.
      ideal: b, None (0 each), a number, or m numbers.
      every, at, terms: as in `Balancer`; with `every` above 1 the losses are those of consecutive
        balancings.
    Raises:
      ValueError: a number outside its range; another optimizer.
    State: float64 [m]: `logits`; Adam's `first`, `second` and `count`; `last` values and `started`,
      1 where `last` holds values.
    Source: Liu, Feng, Stone, Liu 2023, algorithm 1, and the authors' code.

    Example: the first loss halved, the second stayed: it gains weight.
      >>> balancer = FAMO(learning_rate=0.5)
      >>> state = balancer.update(balancer.initial_state(2), [2.0, 1.0], [1.0, 1.0])
      >>> balancer.weights(tf.constant([1.0, 1.0]), state).numpy().round(3).tolist()
      [0.269, 0.731]
    """

    def __init__(
        self,
        gamma: float = 1e-3,
        learning_rate: float = 0.025,
        *,
        optimizer: str = "adam",
        ideal=None,
        every: int = 1,
        at=None,
        terms=None,
    ):
        super().__init__(every=every, at=at, terms=terms)
        self.gamma = number("gamma", gamma, least=0, owner=self)
        self.learning_rate = number("learning_rate", learning_rate, least=0, owner=self)
        if optimizer not in ("adam", "sgd"):
            raise TermwiseError(f"FAMO(optimizer={optimizer!r}): accepted are 'adam' and 'sgd'.")
        self.optimizer = optimizer
        self.ideal = check_points(self, "ideal", ideal)

    def initial_state(self, terms):
        names = ("logits", "first", "second", "count", "last", "started")
        return {name: tf.zeros([terms], tf.float64) for name in names}

    def weights(self, values, state=None, *, step=0):
        numbers = double(values)
        state = state or self.initial_state(numbers.shape[-1])
        logits = self._after(state, numbers)["logits"]
        # softmax(x) / D as one softmax: no quotient can overflow.
        return finite(tf.nn.softmax(logits - self._logarithm(numbers)), values)

    def next_state(self, values, state, *, step=0):
        numbers = double(values)
        moved = self._after(state, numbers)
        return moved | {"last": numbers, "started": tf.ones_like(numbers)}

    def update(self, state: dict, before, after) -> dict[str, tf.Tensor]:
        """The state after a step of the model, from the losses of one batch before and after it.

        Args:
          before, after: floating [m].
        """
        zeros = tf.zeros_like(state["logits"])
        return self._moved(state, double(before), double(after)) | {"last": zeros, "started": zeros}

    def _after(self, state, numbers):
        """The state moved from its last values to these; as it is where it has none."""
        moved = self._moved(state, state["last"], numbers)
        return {name: tf.where(state["started"] > 0, moved[name], state[name]) for name in state}

    def _moved(self, state, before, after):
        delta = self._logarithm(before) - self._logarithm(after)
        shares = tf.nn.softmax(state["logits"])
        gradient = shares * (delta - tf.reduce_sum(shares * delta)) + self.gamma * state["logits"]
        if self.optimizer == "sgd":
            return state | {"logits": state["logits"] - self.learning_rate * gradient}
        count = state["count"] + 1
        first = DECAY_1 * state["first"] + (1 - DECAY_1) * gradient
        second = DECAY_2 * state["second"] + (1 - DECAY_2) * gradient**2
        size = tf.sqrt(second / (1 - DECAY_2**count)) + EPSILON
        logits = state["logits"] - self.learning_rate * first / (1 - DECAY_1**count) / size
        return state | {"logits": logits, "first": first, "second": second, "count": count}

    def _logarithm(self, numbers):
        ideal = points(self, "ideal", self.ideal, numbers.shape[-1])
        return tf.math.log(tf.maximum(numbers - ideal, 0.0) + EPSILON)

    def get_config(self):
        return {
            "gamma": self.gamma,
            "learning_rate": self.learning_rate,
            "optimizer": self.optimizer,
            "ideal": self.ideal,
            **super().get_config(),
        }
