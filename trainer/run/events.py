"""The events of evaluation and prediction, told to Keras callbacks and to a Trainer's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from losses.errors import TermwiseTypeError


@dataclass(frozen=True)
class ReadingEvents:
    """Who hears of a pass over data.

    Attributes:
      kind: "test" or "predict".
      listener: a callback, or a list of them as one.
      batches: whether it has events of single batches, so that each is a call of its own.
    """

    kind: str
    listener: Any
    batches: bool

    @classmethod
    def of(cls, kind: str, callbacks: Iterable, listener) -> ReadingEvents:
        """Those of a kind, told to callbacks, which `listener` stands for."""
        names = f"on_{kind}_batch_begin", f"on_{kind}_batch_end"
        return cls(kind, listener, any(has_events(callback, names) for callback in callbacks))

    @classmethod
    def with_callbacks(cls, kind: str, own, callbacks, model) -> ReadingEvents:
        """Those of a kind, told to a Trainer's own events and to callbacks of a user.

        Args:
          own: the Trainer, as a callback.
          callbacks: Keras callbacks, or None.
          model: what they see as their model.
        Raises:
          TypeError: something that is no list of callbacks.
        """
        if not callbacks:
            return cls.of(kind, [own], own)
        if not isinstance(callbacks, list | tuple) or not all(
            isinstance(each, keras.callbacks.Callback) for each in callbacks
        ):
            raise TermwiseTypeError(
                f"callbacks={callbacks!r}: give a list of keras.callbacks.Callback objects."
            )
        listeners = [own, *callbacks]
        return cls.of(kind, listeners, keras.callbacks.CallbackList(listeners, model=model))

    def begin(self) -> None:
        getattr(self.listener, f"on_{self.kind}_begin")()

    def end(self, logs: dict | None = None) -> None:
        getattr(self.listener, f"on_{self.kind}_end")(logs)

    @property
    def on_batch(self) -> Callable | None:
        """Number of a batch -> a context around it, which yields its logs; None: not told."""
        return self._batch if self.batches else None

    @contextlib.contextmanager
    def _batch(self, number: int) -> Iterator[dict]:
        logs: dict = {}
        getattr(self.listener, f"on_{self.kind}_batch_begin")(number)
        yield logs
        getattr(self.listener, f"on_{self.kind}_batch_end")(number, logs)


def untold(number: int) -> contextlib.AbstractContextManager:
    """A batch of which nobody hears."""
    return contextlib.nullcontext({})


def silent(kind: str) -> ReadingEvents:
    """A pass of which nobody hears."""
    return ReadingEvents(kind, keras.callbacks.Callback(), False)


def has_events(callback, names: Iterable[str]) -> bool:
    """Whether a callback does something at one of the events."""
    kind = type(callback)
    return any(
        name in vars(callback) or getattr(kind, name) is not getattr(keras.callbacks.Callback, name)
        for name in names
    )
