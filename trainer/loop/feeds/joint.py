"""The feed of several sources of arrays: each draws by its own position, all in one program."""

from __future__ import annotations

import tensorflow as tf

from trainer.data.arrays import ArraySource
from trainer.loop.feeds.feed import Feed, LoopCarry


class JointArrayFeed(Feed):
    """Several sources of arrays.

    What goes from step to step is, of each source that is shuffled, the epoch that it is in and the
    order of its examples there: it is drawn anew where another epoch begins.

    Args:
      source: a `JointSource` of arrays.
      xla: whether XLA compiles the step.
    """

    def __init__(self, source, xla: bool):
        super().__init__(source)
        self._xla = xla
        self._shuffled = {name: part for name, part in source.parts.items() if part.shuffle}
        # in one program all batches have one size
        self.in_one_program = all(part.divides for part in source.parts.values())

    def start(self, position, step):
        epochs = {name: tf.constant(-1, tf.int64) for name in self._shuffled}
        orders = {name: tf.range(part.examples) for name, part in self._shuffled.items()}
        return LoopCarry(epoch=epochs, epoch_arrays=orders)

    @property
    def inputs(self):
        return tuple(part.arrays for part in self.source.parts.values())

    def enter(self, inputs, carry, position):
        return carry, position

    def changing(self, carry):
        return carry.epoch, carry.epoch_arrays

    def changed(self, carry, changing):
        epochs, orders = changing
        return carry._replace(epoch=epochs, epoch_arrays=orders)

    def next(self, inputs, segment, changing, number, whole=False):
        position = segment + tf.cast(number, tf.int64)
        epochs, orders = dict(changing[0]), dict(changing[1])
        places = {name: self.source.place_of(name, position) for name in self.source.parts}
        for name, part in self._shuffled.items():
            epoch = places[name] // part.steps_per_epoch
            orders[name] = _order(part, epoch, epochs[name], orders[name])
            epochs[name] = epoch
        batches = [
            part.batch_in_order(arrays, orders.get(name), places[name], self._xla)
            for (name, part), arrays in zip(self.source.parts.items(), inputs, strict=True)
        ]
        return self.source.joined(batches), (), (epochs, orders)

    def batch_at(self, carry, position):
        return self.source.batch_at(position, self._xla)


def _order(part: ArraySource, epoch, current, order):
    """int32 [examples], the order of an epoch; `order` where that is the current one."""
    return tf.cond(tf.equal(epoch, current), lambda: order, lambda: part.order(epoch))
