"""What a step trains: the variables it reaches, their groups, and which are loss parameters."""

from __future__ import annotations

import warnings

import tensorflow as tf

from losses import Layout, Objective
from losses.errors import TermwiseError
from trainer.model.variables import by_path
from trainer.optimizers.groups import WHOLE, partition
from trainer.optimizers.optimizers import Optimizers
from trainer.step.loss_parameters import find_parameters, name_parameters


class Trained:
    """The variables of a run, found in the first trace of its step.

    Attributes:
      variables: path -> variable that the total may reach.
      parameters: path -> loss parameter, among `variables`.
      owners: path -> the optimizer's group, of those that train.
    """

    def __init__(self, trainer, objective: Objective, optimizers: Optimizers, groups=None):
        self._trainer = trainer
        self._objective = objective
        self._optimizers = optimizers
        self._groups = groups
        self.variables: dict = {}
        self.parameters: dict = {}
        self.owners: dict[str, str] = {}
        self._groups_of: dict[str, str] = {}

    def values(self) -> dict:
        """name -> tensor of the loss parameters."""
        return {name: tf.convert_to_tensor(held) for name, held in self.parameters.items()}

    def find(self, tape, model) -> None:
        """Finds the variables, once; `tape` has recorded a step."""
        if self.variables:
            return
        own = by_path(model.trainable_variables)
        found = find_parameters(tape.watched_variables(), model)
        places = [
            *self._objective.places(),
            (self._trainer.name, type(self._trainer).compute_terms),
            (self._trainer.name, self._trainer),
        ]
        parameters = name_parameters(found, places)
        self.parameters = {
            f"{name} (loss)" if name in own else name: variable
            for name, variable in parameters.items()
        }
        self.variables = {**own, **self.parameters}
        members = partition(self._groups, self.variables)
        groups = {path: group for group, paths in members.items() for path in paths}
        loose = [path for path in own if path not in groups]
        if loose:
            raise TermwiseError(
                f"Variables in no group: {', '.join(loose)}. Add them to one of groups= "
                f"({', '.join(members)}); a group without an optimizer is frozen."
            )
        for path in self.variables:
            parameter = path if path in self.parameters else None
            owner = self._optimizers.owner(groups.get(path), parameter)
            if owner is not None:
                self.owners[path] = owner
        self._groups_of = groups

    @property
    def several_passes(self) -> bool:
        """Whether `passes` may be more than one."""
        return self._groups is not None or len(self._optimizers.of_group) > 1

    def passes(self, layout: Layout) -> dict[tuple, list[str]]:
        """The variables by the pass that differentiates them.

        Returns:
          dict: (which terms train them, bool [T] as a tuple; whether their optimizer
          accumulates) -> paths.
        """
        trains = {d.name: d.trains or () for d in self._objective.described or []}
        groups = set(self._groups_of.values()) - {WHOLE}
        for name, only in trains.items():
            if only and not set(only) <= groups:
                raise TermwiseError(
                    f"Term {name!r} trains {', '.join(map(repr, only))}; the groups are "
                    f"{', '.join(map(repr, sorted(groups))) or 'none: pass groups='}."
                )
        found: dict[tuple, list[str]] = {}
        for path, owner in self.owners.items():
            group = self._groups_of.get(path)
            mask = tuple(
                group is None or not trains.get(term) or group in trains[term]
                for term in layout.names
            )
            accumulates = self._optimizers.accumulates(owner)
            found.setdefault((mask, accumulates), []).append(path)
        return found

    def settle(self, reached) -> None:
        """Keeps the variables that some term reaches; says which the model has in vain."""
        if not reached:
            raise TermwiseError(
                "No term depends on any trainable variable. Check that the losses use y_pred, and "
                "that the model or a group has trainable variables and an optimizer."
            )
        unreached = [path for path in self.owners if path not in reached]
        idle = [path for path in unreached if path not in self.parameters]
        if idle:
            warnings.warn(
                f"No term reaches {', '.join(idle)}: they stay as they are.", stacklevel=2
            )
        for path in unreached:
            self.parameters.pop(path, None)
            del self.owners[path]
