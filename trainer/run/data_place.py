"""Where a run stands in its data: the step at which these began, and the pipeline that is open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import tensorflow as tf

from trainer.data.dataset import DatasetSource
from trainer.data.same import difference
from trainer.data.unseeded import find_unseeded
from trainer.loop.traced_step import TracedStep
from trainer.loop.train_loop import OpenLoop


class _Left(NamedTuple):
    """A loop over data that a fit has left open, and the position of its next batch."""

    step: TracedStep
    loop: OpenLoop
    position: int


class DataPlace:
    """Where a run stands in its data.

    The same data go on where they stand, other data begin at the present step. A pipeline that is
    given again goes on with the iterator that is open: a second iterator of the same shuffle would
    draw on. One that is made anew, or in another process, is positioned by skipping. TensorFlow's
    own iterator checkpoints are not used: restored, a shuffle that is repeated may draw an epoch's
    order again (seen in 2.21).

    Attributes:
      began: int64 [] variable, the step at which the data began.
    """

    def __init__(self) -> None:
        self.began = tf.Variable(0, dtype=tf.int64, trainable=False, name="data_start")
        self._source: Any = None  # of the last fit
        self._left: _Left | None = None

    @property
    def start(self) -> int:
        """The step at which the data began; negative where batches were left out since."""
        return int(self.began)

    def again(self, source):
        """The source of the last fit where that reads the same pipeline object, else this one."""
        last = self._source
        if last is None or last.names != source.names or source.indexed:
            return source
        pairs = list(zip(last.each(), source.each(), strict=True))
        pipelines = [isinstance(part, DatasetSource) for _, part in pairs]
        same = [then.passed == part.passed for then, part in pairs]
        arrays = [difference(then.describe(), part.describe()) is None for then, part in pairs]
        chosen = zip(pipelines, same, arrays, strict=True)
        return last if all(s if pipeline else a for pipeline, s, a in chosen) else source

    def difference(self, described: dict | None, source) -> str | None:
        """What tells a source from the data in use, in words; None where they are the same.

        Args:
          described: the data in use, as `Source.describe` told it.
          source: the data of a fit.
        """
        differs = difference(described, source.describe())
        if differs is not None or self._source is None:
            return differs
        for part, then in zip(source.each(), self._source.each(), strict=True):
            if isinstance(part, DatasetSource) and not part.same_pipeline(then):
                return f"of {part.name!r} another pipeline" if part.name else "another pipeline"
        return None

    def unseeded(self, source) -> list[str]:
        """What of a pipeline that is opened anew draws other orders than before, in words."""
        again = source is self._source
        if again and self._left is not None:
            return []
        pipelines = [part for part in source.each() if isinstance(part, DatasetSource)]
        return [draw for part in pipelines for draw in find_unseeded(part.dataset, again)]

    def enter(self, source) -> None:
        """A fit begins with a source."""
        if source is not self._source:
            self._source, self._left = source, None

    def leave(self, step: TracedStep, loop: OpenLoop, position: int) -> None:
        """A fit leaves its pipeline open."""
        self._left = _Left(step, loop, position)

    def opened(self, step: TracedStep, source, position: int) -> OpenLoop | None:
        """The loop that is open at a position of a source, which is then no longer left; or None.

        Args:
          step: the traced step of the loop.
        """
        left, self._left = self._left, None
        if left is None or source is not self._source or source.indexed:
            return None
        return left.loop if left.step is step and left.position == position else None


def enter_data(state, source, start: int, warn: Callable[[str], object]) -> None:
    """Settles where the data of a fit begin: where they did, or here where they are others.

    Args:
      state: of the run.
      source: the data.
      start: the step at which the run stands.
      warn: called with a sentence about what cannot be gone on with.
    """
    differs = state.data.difference(state.host.data, source)
    if differs is not None:
        state.data.began.assign(start)
        state.host = replace(state.host, rates={})
    elif start > state.data.start and (draws := state.data.unseeded(source)):
        warn(
            f"{source.what} draws without a fixed seed ({', '.join(draws)}), so that it is read on "
            "in another order than before: some examples come twice, others not. Seed it, or call "
            "keras.utils.set_random_seed before it is made."
        )
    if differs is not None and start:
        warn(f"{source.what} is not what it was ({differs}): read from its beginning.")
    state.data.enter(source)
    state.host = replace(state.host, data=source.describe())
