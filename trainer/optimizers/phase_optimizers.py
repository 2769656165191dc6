"""The Keras optimizers that phases of a training have of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.model.variables import read, tensor_variable
from trainer.optimizers.arguments import describe_optimizer, keras_optimizer, optimizers_by_group
from trainer.optimizers.groups import WHOLE
from trainer.optimizers.optimizers import Optimizers


class PhaseOptimizers:
    """The optimizers of one phase: its own, and the Trainer's for the groups that it names none of.

    Args:
      given: a Keras optimizer, or a dict of these by group.
      base: the optimizers of the Trainer, which are built.
      phase: its name, for errors.
    Attributes:
      all: the `Optimizers` of the phase's steps.
    Raises:
      ValueError: something that does not go with another optimizer in a phase.
    """

    def __init__(self, given: Any, base: Optimizers, phase: str):
        self._given, self._described = given, _described(given)
        named = optimizers_by_group(given, base.groups)
        for group in named:
            if group not in base.of_group:
                raise TermwiseError(
                    f"Phase {phase!r} has an optimizer for the group {group!r}, and the Trainer "
                    "none: it does not train. Give the Trainer one."
                )
        own = Optimizers(base.strategy, given, groups=base.groups, update_every=base.every)
        for whose, each in (("The Trainer's", base), (f"That of phase {phase!r}", own)):
            _check_plain(whose, each)
        self._own = [name for name in base.of_group if name in own.of_group]
        own.of_group = {name: own.of_group.get(name, o) for name, o in base.of_group.items()}
        self.all = own
        self._fresh: dict[str, np.ndarray] = {}  # of what does not begin with zeros

    def are(self, given: Any) -> bool:
        """Whether these are what is given now: the same objects, or such as they began as."""
        return given is self._given or _described(given) == self._described

    def build(self, base: Optimizers, owners: dict, variables: dict, parameters) -> None:
        """Makes the slots, of what begins to train later too; arguments of `Optimizers.build`."""
        known = self.variables.keys()
        self.all.share(base, [name for name in base.of_group if name not in self._own])
        self.all.build(owners, variables, parameters)
        for name, variable in self.variables.items():
            if name not in known and np.any(value := np.asarray(read(variable))):
                self._fresh[name] = value

    @property
    def own(self) -> dict[str, keras.optimizers.Optimizer]:
        """group -> the optimizers that are not the Trainer's."""
        return {name: self.all.of_group[name] for name in self._own}

    @property
    def variables(self) -> dict[str, Any]:
        """name -> variable of the phase's own optimizers: what a checkpoint holds."""
        return {
            f"{'optimizer' if group.name == WHOLE else group.name}/{place}": variable
            for group in self.all.updated
            if group.name in self._own
            for place, variable in enumerate(group.optimizer.variables)
        }

    def forget(self) -> None:
        """The phase begins: slots, iterations and rates are those of new optimizers."""
        for name, variable in self.variables.items():
            shape, dtype = variable.shape, tensor_variable(variable).dtype
            variable.assign(self._fresh.get(name, tf.zeros(shape, dtype)))


def _described(given: Any) -> dict:
    """group -> an optimizer's class and configuration, of one or of a dict by group."""
    by_group = given if isinstance(given, Mapping) else {WHOLE: given}
    made = {name: keras_optimizer(each) for name, each in by_group.items()}
    return {name: (type(o), describe_optimizer(o)) for name, o in made.items()}


def _check_plain(whose: str, optimizers: Optimizers) -> None:
    """Raises ValueError where optimizers cannot stand beside others in a run."""
    if optimizers.scaled:
        what = "scales the loss (float16)"
    elif optimizers.accumulation > 1:
        what = "accumulates gradients"
    elif optimizers.keeps_averages:
        what = "keeps averages of the weights (use_ema)"
    else:
        return
    raise TermwiseError(
        f"Phase(optimizer=) does not go with an optimizer that {what}. {whose} does. Train in "
        "float32 or bfloat16, without gradient_accumulation_steps and use_ema; or drop it."
    )
