"""Keras callbacks in the loop: what they see as the model, and as an epoch's logs."""

from __future__ import annotations

import keras

from losses.errors import TermwiseTypeError


class CallbackModel:
    """The model as a callback sees it: with an optimizer and `stop_training`, uncompiled.

    Everything else is the model's own.
    """

    def __init__(self, model, optimizer):
        self._seen = model
        self.optimizer = optimizer
        self.stop_training = False

    def __getattr__(self, name):
        return getattr(self._seen, name)


def open_callbacks(callbacks, events, model, optimizer, params: dict):
    """The callbacks of a fit, the Trainer's own events first.

    Args:
      callbacks: the user's.
      events: the Trainer, as a callback.
      model, optimizer: what they see; a dict of optimizers by group, or one.
      params: of the callbacks.
    Returns:
      keras.callbacks.CallbackList, and the CallbackModel they see.

    Raises:
      TypeError: something that is no Keras callback.
    """
    check_callbacks(callbacks)
    if isinstance(optimizer, dict):
        optimizer = next(iter(optimizer.values()))
    seen = CallbackModel(model, optimizer)
    opened = keras.callbacks.CallbackList([events, *(callbacks or ())], model=seen, **params)
    return opened, seen


def check_callbacks(callbacks) -> None:
    """Raises TypeError where something is no Keras callback, or a single one is no list."""
    if isinstance(callbacks, keras.callbacks.Callback):
        raise TermwiseTypeError(
            f"callbacks= is a {type(callbacks).__name__}. Give a list: callbacks=[...]."
        )
    for callback in callbacks or ():
        if not isinstance(callback, keras.callbacks.Callback):
            raise TermwiseTypeError(
                f"callbacks= holds {callback!r}. Accepted: keras.callbacks.Callback objects."
            )


def epoch_logs(train: dict | None, evaluation: dict | None) -> dict:
    """One epoch's logs: the rows' tags, and the names that Keras callbacks monitor by default.

    `loss`, `val_loss`, `accuracy`, `val_accuracy` stand beside `total`, `val_total`,
    `metrics/accuracy`, `val_metrics/accuracy`.
    """
    logs: dict = {}
    for prefix, row in (("", train), ("val_", evaluation)):
        for key, value in (row or {}).items():
            if key in ("step", "split", "time") or value is None:
                continue
            logs[prefix + key] = value
            if key == "total":
                logs[f"{prefix}loss"] = value
            elif key.startswith("metrics/"):
                logs[prefix + key.removeprefix("metrics/")] = value
    return logs
