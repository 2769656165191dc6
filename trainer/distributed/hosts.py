"""The processes that train together: who writes, and what they must agree on between calls."""

from __future__ import annotations

import json
import sys

import numpy as np
import tensorflow as tf

from losses.distributed.hosts import host_count, host_index, sum_over_hosts
from losses.errors import TermwiseRuntimeError
from trainer.distributed.devices import only_gpu
from trainer.launch.exit_codes import PEER_LOST

# what TensorFlow raises where another host has died or was started anew
LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)
_WIDE = {"f": np.float64, "i": np.int64, "u": np.int64, "b": np.int64}


class PeerLost(SystemExit):
    """Another host is gone; a program that does not catch it exits with code 75."""

    def __init__(self, message: str):
        super().__init__(PEER_LOST)
        print(f"error: {message}", file=sys.stderr, flush=True)  # a SystemExit says nothing
        self.message = message

    def __str__(self):
        return self.message


class Hosts:
    """The hosts of a run; every method but the attributes is called on all of them together.

    Attributes:
      count: int, 1 unless the strategy spans hosts.
      index: int, this one; 0 is the chief.
      chief: bool, whether this host writes files and prints.
      replicas: int, of all hosts.
      gpu: str, the GPU of a run of one replica, or None.
    """

    def __init__(self, strategy):
        self._strategy = strategy
        self.count = host_count(strategy)
        self.index = host_index(strategy)
        self.chief = self.index == 0
        self.replicas = strategy.num_replicas_in_sync
        self.gpu = only_gpu(strategy)

    def exchange(self, *numbers: float) -> np.ndarray:
        """float64 [hosts, numbers], what each host gave."""
        table = np.zeros([self.count, len(numbers)])
        table[self.index] = numbers
        if self.count == 1:
            return table
        return np.asarray(sum_over_hosts(self._strategy, tf.constant(table)))

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised on some host."""
        return bool(self.exchange(float(flag)).any())

    def broadcast(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The chief's arrays on every host, which gives arrays of their shapes and dtypes."""
        arrays = [np.asarray(array) for array in arrays]
        return self._sum(arrays if self.chief else [np.zeros_like(array) for array in arrays])

    def gather(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The hosts' arrays, [rows, ...] each, one after another: [hosts * rows, ...]."""
        whole = []
        for array in arrays:
            rows = len(array)
            wide = np.zeros([self.count * rows, *array.shape[1:]], array.dtype)
            wide[self.index * rows : (self.index + 1) * rows] = array
            whole.append(wide)
        return self._sum(whole)

    def _sum(self, arrays):
        if self.count == 1 or not arrays:
            return arrays
        received: list = [None] * len(arrays)
        for kind in sorted({array.dtype.kind for array in arrays}):
            places = [i for i, array in enumerate(arrays) if array.dtype.kind == kind]
            wide = np.concatenate([arrays[i].astype(_WIDE[kind]).ravel() for i in places])
            whole = np.asarray(sum_over_hosts(self._strategy, tf.constant(wide)))
            at = 0
            for i in places:
                part = whole[at : at + arrays[i].size]
                received[i] = part.astype(arrays[i].dtype).reshape(arrays[i].shape)
                at += arrays[i].size
        return received

    def from_chief(self, function):
        """The plain value of a function that only the chief calls; its error is raised on all.

        A chief that failed alone would leave the others waiting for it.
        """
        if self.count == 1:
            return function()
        result, failed = None, None
        if self.chief:
            try:
                result = function()
            except Exception as error:
                failed = error
        told = self.broadcast_json([str(failed) if failed else None, result])
        if failed is not None:
            raise failed
        if told[0] is not None:
            raise TermwiseRuntimeError(f"The chief failed: {told[0]}")
        return told[1]

    def broadcast_json(self, value):
        """The chief's plain value on every host."""
        if self.count == 1:
            return value
        data = np.frombuffer(json.dumps(value).encode(), np.uint8) if self.chief else None
        size = int(self.exchange(0 if data is None else data.size)[0, 0])
        held = np.zeros(size, np.uint8) if data is None else data
        return json.loads(self.broadcast([held])[0].tobytes().decode())


def peer_lost(error: Exception) -> bool:
    """Whether an error of a run on several hosts means that another host is gone."""
    if isinstance(error, (tf.errors.InternalError, tf.errors.FailedPreconditionError)):
        words = ("incarnation", "peer", "Collective", "collective", "coordination", "Connection")
        return any(word in str(error) for word in words)
    return isinstance(error, LOST)
