"""Random draws under replicas: other dropout masks on each, and one state that is saved."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from losses.errors import TermwiseError

SPREAD = 0x9E3779B9  # replicas' seeds are this far apart, modulo 2^31


class _Unseeded(keras.random.SeedGenerator):
    """The generator of draws without a seed; it counts, as those of layers do."""

    def next(self, ordered=True):
        return super().next(ordered=True)


class Randomness:
    """The random state of a run.

    Keras's seed generators draw the same numbers on every replica. Here each replica's copy of
    their state starts elsewhere: the first replica's where Keras put it, the others' `SPREAD`
    further each. A checkpoint holds the first replica's; `spread` makes the others' of it.

    Args:
      strategy: the run's strategy.
      kind: "different" or "same" draws on the replicas.
    Raises:
      ValueError: another kind.
    """

    def __init__(self, strategy, kind: str = "different"):
        if kind not in ("different", "same"):
            raise TermwiseError(
                f"replica_randomness={kind!r}: accepted are 'different' and 'same'."
            )
        self._strategy = strategy
        self._several = strategy.num_replicas_in_sync > 1
        self._same = kind == "same"
        self._unseeded: _Unseeded | None = None

    def prepare(self) -> None:
        """Makes the generator of `keras.random` calls without a seed, before the first trace."""
        if self._several and self._unseeded is None:
            with self._strategy.scope():
                self._unseeded = _Unseeded(name="unseeded")

    def enter(self) -> None:
        """Lends that generator to the thread of a replica, where Keras would make a new one."""
        if self._unseeded is not None:
            global_state.set_global_attribute("global_seed_generator", self._unseeded)

    @property
    def variables(self) -> list:
        """The state of the draws without a seed."""
        return [] if self._unseeded is None else [self._unseeded.state]

    def spread(self, variables) -> None:
        """Moves each replica's seeds apart from those of the first, whose state stays."""
        seeds = [v for v in variables if is_seed(v)]
        if not self._several or self._same or not seeds:
            return

        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            far = tf.cast(index, tf.int64) * SPREAD
            for variable in seeds:
                state = tf.cast(tf.convert_to_tensor(variable.value), tf.int64)
                moved = (state + far * np.array([1, 0])) % 2**31
                state = tf.where(tf.equal(index, 0), state, moved)
                variable.value.assign(tf.cast(state, variable.dtype))

        def move():
            self._strategy.run(replica)

        tf.function(move, autograph=False).get_concrete_function()()


def is_seed(variable) -> bool:
    """Whether a variable is the state of a Keras seed generator."""
    path = getattr(variable, "path", None) or variable.name
    return path.split("/")[-1].startswith("seed_generator_state")
