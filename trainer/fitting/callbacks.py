"""Keras callbacks in the loop: what is lent to their model, which events they have, their logs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping

import keras

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.fitting.callback_state import check_state
from trainer.fitting.validation import prefix_of
from trainer.ledger.rows import STAMP
from trainer.run.events import has_events

BATCH_EVENTS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
REFUSED = {
    keras.callbacks.BackupAndRestore: "pass workdir=: a run is saved there and goes on by itself",
    keras.callbacks.SwapEMAWeights: (
        "leave it out: evaluation, validation, predict and export use the averages already"
    ),
}


class EveryGroup:
    """The optimizers of all groups as a learning-rate callback sees them: one rate for all."""

    def __init__(self, optimizers: Iterable):
        self._optimizers = list(optimizers)

    @property
    def learning_rate(self):
        """That of the first group; setting it sets that of every group."""
        return self._optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, rate) -> None:
        for optimizer in self._optimizers:
            optimizer.learning_rate = rate

    @property
    def iterations(self):
        return self._optimizers[0].iterations


class EpochLogs(dict):
    """The logs of an epoch: each value once, under the name that it has in Keras.

    A value is found under the tag of its row too, though that is not listed: `logs["val_total"]`
    is `logs["val_loss"]`, and `logs["metrics/accuracy"]` is `logs["accuracy"]`.

    Args:
      listed: name -> value.
      tags: tag -> value, of what is listed under another name.
    """

    def __init__(self, listed: Mapping, tags: Mapping):
        super().__init__(listed)
        self._tags = dict(tags)

    @classmethod
    def of(cls, logs: Mapping) -> EpochLogs:
        """Logs as they are, where they are some already."""
        return logs if isinstance(logs, cls) else cls(logs, {})

    def __missing__(self, tag):
        return self._tags[tag]

    def __contains__(self, key) -> bool:
        return super().__contains__(key) or key in self._tags

    def get(self, key, default=None):
        """The value of a name or a tag."""
        return super().get(key, self._tags.get(key, default))

    def numbers(self) -> EpochLogs:
        """The same with NaN where a value is None: there was nothing."""
        listed, tags = (
            {key: math.nan if value is None else value for key, value in part.items()}
            for part in (self, self._tags)
        )
        return EpochLogs(listed, tags)


class Events(keras.callbacks.CallbackList):
    """The callbacks of a fit. What is None in an epoch's logs is nothing, and decides nothing.

    A callback that stops, saves or changes the rate by a value is not told of an epoch without it;
    others are given NaN.
    """

    def on_epoch_end(self, epoch, logs=None):
        logs = EpochLogs.of(logs or {})
        for callback in self.callbacks:
            if logs.get(_monitored(callback), 0) is not None:
                callback.on_epoch_end(epoch, logs.numbers())


def _monitored(callback) -> str | None:
    """The value by which one of Keras's callbacks decides; None where it does not."""
    if isinstance(callback, keras.callbacks.ModelCheckpoint):
        return callback.monitor if callback.save_best_only else None
    by_value = keras.callbacks.EarlyStopping, keras.callbacks.ReduceLROnPlateau
    return callback.monitor if isinstance(callback, by_value) else None


def lend_optimizer(model, optimizer) -> None:
    """Gives callbacks their `model.optimizer`, of one optimizer or of a dict by group."""
    seen = EveryGroup(optimizer.values()) if isinstance(optimizer, dict) else optimizer
    model.optimizer = seen


@contextlib.contextmanager
def open_callbacks(callbacks, events, model, optimizer, metrics, params: dict) -> Iterator:
    """The callbacks of a fit, the Trainer's own events first.

    Their `self.model` is the model itself. Within the context it has the optimizer and
    `stop_training`, as in Keras's fit; afterwards it has again what it had before.

    Args:
      callbacks: the user's.
      events: the Trainer, as a callback.
      model, optimizer: what they see; a dict of optimizers by group, or one.
      metrics: those of training, by which `mode="auto"` knows its direction.
      params: of the callbacks.
    Yields:
      Events.
    """
    callbacks = list(callbacks or ())
    lent = ("optimizer", "stop_training")
    before = {name: vars(model)[name] for name in lent if name in vars(model)}
    automatic = _settle_modes(callbacks, metrics)
    try:
        lend_optimizer(model, optimizer)
        model.stop_training = False
        yield Events([events, *callbacks], model=model, **params)
    finally:
        for callback in automatic:
            callback.mode = "auto"
        for name in lent:
            delattr(model, name)
        for name, value in before.items():
            setattr(model, name, value)


def _settle_modes(callbacks, metrics) -> list:
    """Tells callbacks of mode "auto" the direction of what they monitor; those that were told.

    Raises:
      ValueError: it is not known.
    """
    kinds = keras.callbacks.EarlyStopping, keras.callbacks.ModelCheckpoint
    automatic = [c for c in callbacks if isinstance(c, kinds) and c.mode == "auto"]
    for callback in automatic:
        callback.mode = _falls_or_rises(callback, metrics)
    return automatic


def _falls_or_rises(callback, metrics) -> str:
    name = callback.monitor.removeprefix("val_")
    if name in ("loss", "total") or name.startswith(("terms/", "raw/")):
        return "min"
    name = name.removeprefix("metrics/")
    for metric in metrics:
        if metric.name == name or name.endswith(f"_{metric.name}"):
            known = getattr(metric, "_direction", None)
            if known is not None:
                return "max" if known == "up" else "min"
    rising = ("acc", "auc", "precision", "recall", "f1", "iou", "r2")
    if any(word in name.lower() for word in rising):
        return "max"
    raise TermwiseError(
        f"{type(callback).__name__}(monitor={callback.monitor!r}): whether it should fall or rise "
        'is not known. Pass mode="min" or mode="max".'
    )


def has_batch_events(callbacks) -> list[str]:
    """The names of the callbacks that want an event at every step."""
    return [type(c).__name__ for c in callbacks or () if _wants_steps(c)]


def _wants_steps(callback) -> bool:
    saves_at_epochs = isinstance(callback, keras.callbacks.ModelCheckpoint)
    if saves_at_epochs and callback.save_freq == "epoch":
        return False
    if isinstance(callback, keras.callbacks.TensorBoard) and callback.update_freq == "epoch":
        return False
    return has_events(callback, BATCH_EVENTS)


def check_callbacks(callbacks) -> None:
    """Raises where something is no Keras callback, cannot work, or is no list."""
    if isinstance(callbacks, keras.callbacks.Callback):
        raise TermwiseTypeError(
            f"callbacks= is a {type(callbacks).__name__}. Give a list: callbacks=[...]."
        )
    for callback in callbacks or ():
        if not isinstance(callback, keras.callbacks.Callback):
            raise TermwiseTypeError(
                f"callbacks= holds {callback!r}. Accepted: keras.callbacks.Callback objects."
            )
        for kind, advice in REFUSED.items():
            if isinstance(callback, kind):
                raise TermwiseError(
                    f"callbacks= holds {kind.__name__}, which cannot work: {advice}."
                )
        check_state(callback)


def epoch_logs(
    train: dict | None, evaluations: Mapping[str, dict], loss: float | None
) -> EpochLogs:
    """One epoch's logs: each value once, by the name that Keras callbacks monitor by default.

    Args:
      train: the last row.
      evaluations: split -> what was evaluated.
      loss: the mean total of the epoch's examples, as Keras reports it; None where none counted.

    A value is None where there is nothing: every step was skipped, or the data has no such term.
    `loss`, `val_loss`, `accuracy`, `val_accuracy` are listed, and found too as `total`,
    `val_total`, `metrics/accuracy`, `val_metrics/accuracy`; of a set by name `val_<name>_loss` and
    so on. `total` is that of the last row, `loss` that of the epoch.
    """
    listed: dict = {"loss": loss}
    tags: dict = {}
    evaluated = [(prefix_of(split), row) for split, row in evaluations.items()]
    for prefix, row in (("", train), *evaluated):
        for tag, value in (row or {}).items():
            if tag in STAMP:
                continue
            name = "loss" if tag == "total" else tag.removeprefix("metrics/")
            if name != tag:
                tags[prefix + tag] = value
            listed.setdefault(prefix + name, value)
    return EpochLogs(listed, tags)
