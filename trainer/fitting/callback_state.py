"""What callbacks know when a fit is interrupted, and with which of it they go on."""

from __future__ import annotations

import inspect
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np

from losses.errors import TermwiseTypeError
from trainer.run.packing import copied, is_plain

# callbacks of Keras whose attributes are their state, but for the arguments they were made with
KEPT = (
    keras.callbacks.EarlyStopping,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.History,
)
_OF_EVERY_CALLBACK = frozenset(vars(keras.callbacks.Callback()))


@runtime_checkable
class Stateful(Protocol):
    """A callback that says what it knows, and is given it back."""

    def get_state(self) -> Any:
        """Numbers, strings, None, arrays, and lists and dicts of them."""

    def set_state(self, state) -> None:
        """What `get_state` gave, after `on_train_begin`."""


class CallbackStates:
    """The states of a fit's callbacks.

    Args:
      callbacks: all of the fit, before `on_train_begin`.
    """

    def __init__(self, callbacks: list):
        self.callbacks = callbacks
        self._kinds = [{"kind": _kind(c), "settings": _settings(c)} for c in callbacks]
        self._begun: list[dict] = [{} for _ in callbacks]

    def begin(self) -> None:
        """`on_train_begin` is over: what changes from now on is state."""
        self._begun = [_attributes(callback) for callback in self.callbacks]

    def noted(self) -> tuple[dict, ...]:
        """Each callback's kind, settings and state; and what it keeps without saying so.

        Raises:
          TypeError: `get_state` gives what cannot be saved.
        """
        parts = zip(self.callbacks, self._kinds, self._begun, strict=True)
        return tuple(
            {**kind, "state": _state(callback), "unsaved": _unsaved(callback, begun)}
            for callback, kind, begun in parts
        )

    def same(self, noted) -> bool:
        """Whether these are the callbacks of a fit that has noted its own, with their settings."""
        kinds = [{key: entry[key] for key in ("kind", "settings")} for entry in noted]
        return kinds == self._kinds

    def go_on(self, noted, callbacks: list | None = None, same_objects: bool = False) -> list[str]:
        """Gives the callbacks the states that were noted.

        Args:
          noted: of a fit's callbacks; a callback goes on with that of its kind and settings.
          callbacks: that fit's, where it was one of this process.
          same_objects: whether, of these, each goes on with the state of that very object alone.
        Returns:
          sentences about what could not be gone on with.
        """
        objects = [None] * len(noted) if callbacks is None else callbacks
        left, told = list(zip(objects, noted, strict=True)), []
        for callback, kind in zip(self.callbacks, self._kinds, strict=True):
            by_object = same_objects and callbacks is not None
            for pair in left:
                fits = pair[0] is callback if by_object else _is_of(pair[1], kind)
                if fits:
                    left.remove(pair)
                    _give(callback, pair[1]["state"])
                    if pair[1]["unsaved"] and pair[0] is not callback:
                        told.append(_lost(callback, pair[1]["unsaved"]))
                    break
        return told


def check_state(callback) -> None:
    """Raises where a callback has one of `get_state` and `set_state` alone."""
    methods = [callable(getattr(callback, name, None)) for name in ("get_state", "set_state")]
    if any(methods) and not all(methods):
        has, lacks = ("get_state", "set_state") if methods[0] else ("set_state", "get_state")
        raise TermwiseTypeError(
            f"callbacks= holds a {type(callback).__name__} that has {has}() and no {lacks}(). "
            "Give it both, so that a resumed run goes on with its state, or none."
        )


def _is_of(entry: dict, kind: dict) -> bool:
    return all(entry[key] == kind[key] for key in kind)


def _kind(callback) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def _settings(callback) -> dict:
    """The constructor's arguments by name, of those that are plain attributes."""
    values = vars(callback)
    return {
        # Keras turns the sign of min_delta when it knows the direction
        name: abs(values[name]) if name == "min_delta" else values[name]
        for name in sorted(_arguments(callback))
        if name in values and _is_setting(values[name])
    }


def _arguments(callback) -> set[str]:
    """The names of the arguments of a callback's constructors, its bases' among them."""
    made = (vars(kind)["__init__"] for kind in type(callback).__mro__ if "__init__" in vars(kind))
    return {name for init in made for name in _parameters(init)}


def _parameters(function) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # written in C
        return []


def _is_setting(value) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _state(callback) -> Any:
    """What a callback knows; None where it says nothing."""
    if isinstance(callback, Stateful):
        state = callback.get_state()
        if not is_plain(state):
            raise TermwiseTypeError(
                f"{type(callback).__name__}.get_state() gives {state!r:.200}, which cannot be "
                "saved. Give numbers, strings, None, numpy arrays, or lists and dicts of them."
            )
        return copied(state)
    return _attributes(callback) if isinstance(callback, KEPT) else None


def _attributes(callback) -> dict:
    """The plain attributes that are no arguments of the constructor."""
    settings = _arguments(callback) | _OF_EVERY_CALLBACK
    values = {k: v for k, v in vars(callback).items() if k not in settings and is_plain(v)}
    return copied(values)


def _give(callback, state) -> None:
    if state is None:
        return
    if isinstance(callback, Stateful):
        callback.set_state(copied(state))
    else:
        vars(callback).update(copied(state))


def _unsaved(callback, begun: dict) -> list[str]:
    """What a callback of the user's has changed since it began, and nobody saves."""
    if isinstance(callback, (Stateful, *KEPT)) or _kind(callback).startswith("keras."):
        return []
    now = _attributes(callback)
    return [name for name in now if name not in begun or not _equal(now[name], begun[name])]


def _equal(value, before) -> bool:
    try:
        return bool(np.array_equal(value, before))
    except (TypeError, ValueError):
        return value == before


def _lost(callback, names: list[str]) -> str:
    return (
        f"{type(callback).__name__} keeps {', '.join(names)} and has no get_state() and "
        "set_state(): there it begins anew."
    )
