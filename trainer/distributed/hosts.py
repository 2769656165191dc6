"""The processes that train together: who writes, and what they must agree on."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from losses.distributed.hosts import host_count, host_index, sum_over_hosts
from losses.errors import TermwiseError, TermwiseRuntimeError
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
# the dtype in which values of a kind are summed
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
    """The hosts of a run. Every method is a collective: all hosts call it at the same moment.

    Attributes:
      count: int, 1 unless the strategy spans hosts.
      index: int, of this host; 0 is the chief.
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
        """float64 [hosts, numbers]: the numbers with which each host called this."""
        table = np.zeros([self.count, len(numbers)])
        table[self.index] = numbers
        if self.count == 1:
            return table
        return np.asarray(sum_over_hosts(self._strategy, tf.constant(table)))

    def check_same(self, what: str, values: Mapping[str, float | None]) -> None:
        """Raises ValueError, on all hosts, where the hosts have other values.

        Args:
          what: what they are of, for the error.
          values: name -> value, the same names on every host.
        """
        numbers = [math.nan if value is None else value for value in values.values()]
        table = self.exchange(*numbers)
        for name, column in zip(values, table.T, strict=True):
            if np.array_equal(column, np.full_like(column, column[0]), equal_nan=True):
                continue
            shown = (f"{'None' if math.isnan(number) else f'{number:.15g}'}" for number in column)
            raise TermwiseError(
                f"{what}: {name} differs between the hosts; from the chief on it is "
                f"{', '.join(shown)}. Start all hosts with the same program and arguments."
            )

    def any(self, flag: bool) -> bool:
        """Whether the flag is raised on some host."""
        return bool(self.exchange(float(flag)).any())

    def broadcast(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The chief's arrays, on every host.

        Args:
          arrays: of the same shapes and dtypes on every host; only the chief's values count.
        """
        arrays = [np.asarray(array) for array in arrays]
        return self._sum(arrays if self.chief else [np.zeros_like(array) for array in arrays])

    def gather(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The hosts' arrays, [rows, ...] each, one after another: [hosts * rows, ...]."""
        padded = []
        for array in arrays:
            rows = len(array)
            of_all = np.zeros([self.count * rows, *array.shape[1:]], array.dtype)
            of_all[self.index * rows : (self.index + 1) * rows] = array
            padded.append(of_all)
        return self._sum(padded)

    def _sum(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The hosts' arrays added up, in one collective per kind of dtype."""
        if self.count == 1 or not arrays:
            return arrays
        sums: list = [None] * len(arrays)
        for kind in sorted({array.dtype.kind for array in arrays}):
            places = [i for i, array in enumerate(arrays) if array.dtype.kind == kind]
            packed = np.concatenate([arrays[i].astype(_WIDE[kind]).ravel() for i in places])
            summed = np.asarray(sum_over_hosts(self._strategy, tf.constant(packed)))
            start = 0
            for i in places:
                part = summed[start : start + arrays[i].size]
                sums[i] = part.astype(arrays[i].dtype).reshape(arrays[i].shape)
                start += arrays[i].size
        return sums

    def from_chief(self, function):
        """The plain value of a function that only the chief calls, on every host.

        An error of the function is raised on every host: a chief that failed alone would leave
        the others waiting for it.
        """
        if self.count == 1:
            return function()
        result, failure = None, None
        if self.chief:
            try:
                result = function()
            except Exception as error:
                failure = error
        message, result = self.broadcast_json([str(failure) if failure else None, result])
        if failure is not None:
            raise failure
        if message is not None:
            raise TermwiseRuntimeError(f"The chief failed: {message}")
        return result

    def broadcast_json(self, value):
        """The chief's value, which JSON has a form for, on every host."""
        if self.count == 1:
            return value
        return json.loads(self.broadcast_bytes(json.dumps(value if self.chief else None).encode()))

    def broadcast_bytes(self, value: bytes) -> bytes:
        """The chief's bytes, on every host."""
        if self.count == 1:
            return value
        size = int(self.exchange(len(value))[0, 0])
        array = np.frombuffer(value, np.uint8) if self.chief else np.zeros(size, np.uint8)
        return self.broadcast([array])[0].tobytes()


def peer_lost(error: Exception) -> bool:
    """Whether an error of a run on several hosts means that another host is gone."""
    if isinstance(error, (tf.errors.InternalError, tf.errors.FailedPreconditionError)):
        words = ("incarnation", "peer", "Collective", "collective", "coordination", "Connection")
        return any(word in str(error) for word in words)
    return isinstance(error, LOST)
