"""What `optimizer=` and `update_every=` accept, by group; what each becomes: a Keras optimizer."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Mapping

import keras

from losses.errors import TermwiseError, TermwiseTypeError
from losses.naming import suggestion
from trainer.data.batch import is_whole
from trainer.optimizers.groups import WHOLE, check_names
from trainer.optimizers.loss_scale import unwrapped

_SCHEDULE = keras.optimizers.schedules.LearningRateSchedule


def optimizers_by_group(optimizer, groups: Mapping | None) -> Mapping:
    """group -> what was given for it.

    Raises:
      ValueError: a dict without groups, or of a group that is not there.
    """
    if not isinstance(optimizer, Mapping) or "class_name" in optimizer:
        return {name: optimizer for name in groups or {WHOLE: None}}
    if groups is None:
        raise TermwiseError(
            "optimizer= is a dict by group, but there are no groups=. Pass groups="
            f"{{{next(iter(optimizer), 'name')!r}: 'pattern of variable paths', ...}}."
        )
    check_names(optimizer, groups, "optimizer=")
    return optimizer


def update_intervals(update_every, groups: Mapping | None) -> dict[str, int]:
    """group -> steps between its updates, as given.

    Raises:
      TypeError, ValueError: no dict, an unknown group, or no whole number.
    """
    if update_every is not None and not isinstance(update_every, Mapping):
        raise TermwiseTypeError(
            f"update_every={update_every!r}. Give a dict of group -> steps between its "
            "updates, such as {'generator': 5}."
        )
    intervals = dict(update_every or {})
    check_names(intervals, groups or {}, "update_every=")
    for group, steps in intervals.items():
        if not is_whole(steps) or steps < 1:
            raise TermwiseError(
                f"update_every={{{group!r}: {steps!r}}}: give a whole number of at least 1."
            )
    return intervals


def keras_optimizer(argument):
    """The Keras optimizer of a name, a configuration, or an object, which is returned as it is.

    Raises:
      TypeError: a class, or a MultiOptimizer.
      ValueError: Keras knows no such optimizer.
    """
    if inspect.isclass(argument) and issubclass(argument, keras.optimizers.Optimizer):
        raise TermwiseTypeError(
            f"optimizer={argument.__name__} is a class. Give its name, or an object: "
            f"{argument.__name__}(...)."
        )
    try:
        optimizer = keras.optimizers.get(argument)
    except (ValueError, TypeError) as error:
        hint = _hint(argument)
        raise TermwiseError(
            f"optimizer={argument!r}: Keras knows no such optimizer. Give a name such as 'adam', "
            f"or a keras.optimizers object.{hint}"
        ) from error
    if isinstance(unwrapped(optimizer), keras.optimizers.MultiOptimizer):
        raise TermwiseTypeError(_spelling_of(unwrapped(optimizer)))
    return optimizer


def _hint(argument) -> str:
    """What was probably meant by what is no Keras optimizer."""
    name = argument if isinstance(argument, str) else type(argument).__name__
    if name.lower().replace("-", "").replace("_", "") in ("lbfgs", "bfgs", "gaussnewton"):
        return (
            " Second order over all data is a phase: fit(phases=[trainer.Phase('second_order', "
            "optimizer=trainer.LBFGS())])."
        )
    return suggestion(argument, _names()) if isinstance(argument, str) else ""


def describe_optimizer(optimizer) -> dict:
    """An optimizer's configuration in plain values.

    Where it has none (of a schedule without `get_config`), its class, the schedule's, and what
    else of it is plain.
    """
    try:
        with warnings.catch_warnings():  # a lambda that is written down is not run again
            warnings.simplefilter("ignore")
            return {**optimizer.get_config(), "name": _name_of(optimizer)}
    except (NotImplementedError, TypeError, ValueError):
        values = vars(unwrapped(optimizer)).items()
        plain = {k: v for k, v in values if isinstance(v, (bool, int, float, str, type(None)))}
        public = {name: value for name, value in plain.items() if not name.startswith("_")}
        schedules = [type(value).__name__ for _, value in values if isinstance(value, _SCHEDULE)]
        described = {"name": _name_of(optimizer), "class_name": type(optimizer).__name__, **public}
        return {**described, "learning_rate": schedules[0] if schedules else None}


def _name_of(optimizer) -> str:
    """Its name, without the number that Keras gives to the second of its class in a process."""
    bare = re.sub(r"_\d+$", "", optimizer.name)
    automatic = bare.replace("_", "") == type(optimizer).__name__.lower()
    return bare if automatic else optimizer.name


def _spelling_of(optimizer) -> str:
    """How a MultiOptimizer is written as groups."""
    names = [part.name for part in optimizer.optimizers] or ["first", "second"]
    patterns = ", ".join(f"{name!r}: ['pattern of variable paths', ...]" for name in names)
    objects = ", ".join(f"{name!r}: ..." for name in names)
    return (
        "optimizer= is a keras.optimizers.MultiOptimizer, which has no learning rate and no state "
        "of its own to log and save. Give its optimizers by group instead: "
        f"Trainer(..., groups={{{patterns}}}, optimizer={{{objects}}}). Every variable belongs to "
        "one group; 'dense/*' is a pattern."
    )


def _names() -> list[str]:
    """What `keras.optimizers.get` knows by name."""
    return [
        name.lower()
        for name, kind in vars(keras.optimizers).items()
        if inspect.isclass(kind) and issubclass(kind, keras.optimizers.Optimizer)
    ]
