"""What a step trains: the variables it reaches, their groups, and which are loss parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import tensorflow as tf

from losses.errors import TermwiseError
from losses.objective.layout import Layout
from trainer.model.owners import Network, find_networks, find_owners
from trainer.model.switches import Switches
from trainer.model.variables import by_path, tensor_variable
from trainer.optimizers.groups import WHOLE, partition
from trainer.optimizers.optimizers import Optimizers
from trainer.step.loss_parameters import (
    find_parameters,
    name_parameters,
    term_that_reaches,
)


@dataclass(frozen=True)
class TrainableVariables:
    """The variables of a run, found in the first trace of its step.

    Attributes:
      variables: path -> variable that the total may reach.
      parameters: path -> loss parameter, among `variables`.
      owners: path -> the optimizer's group, of those that train.
      groups: path -> the group of `groups=`.
      networks: those outside the model that train.
      switches: what in Keras says what trains.
    """

    variables: dict = field(default_factory=dict)
    parameters: dict = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    networks: tuple[Network, ...] = ()
    switches: Switches = field(default_factory=Switches)

    def of_groups(self, groups: tuple[str, ...] | None) -> TrainableVariables:
        """Those of some groups, and the loss parameters, which are of none; None: all."""
        if groups is None:
            return self
        owners = {p: o for p, o in self.owners.items() if self.groups.get(p) in (*groups, None)}
        return replace(self, owners=owners)

    def parameter_values(self) -> dict[str, tf.Tensor]:
        """name -> tensor of the loss parameters."""
        return {name: tf.convert_to_tensor(value) for name, value in self.parameters.items()}

    def passes(self, layout: Layout, trained_groups: Mapping, accumulates: Callable) -> dict:
        """The variables by the pass of the tape that differentiates them.

        Args:
          layout: the T terms.
          trained_groups: term -> the groups it trains; () trains all it reaches.
          accumulates: group -> whether its optimizer adds up the gradients of several steps.
        Returns:
          dict: (which terms train them, bool [T] as a tuple; whether their optimizer
          accumulates) -> paths.
        Raises:
          ValueError: a term trains a group that is not there.
        """
        groups = set(self.groups.values()) - {WHOLE}
        for name, only in trained_groups.items():
            if only and not set(only) <= groups:
                raise TermwiseError(
                    f"Term {name!r} trains {', '.join(map(repr, only))}; the groups are "
                    f"{', '.join(map(repr, sorted(groups))) or 'none: pass groups='}."
                )
        passes: dict[tuple, list[str]] = {}
        for path, owner in self.owners.items():
            group = self.groups.get(path)
            mask = tuple(
                group is None or not trained_groups.get(term) or group in trained_groups[term]
                for term in layout.names
            )
            passes.setdefault((mask, accumulates(owner)), []).append(path)
        return passes

    def reached_by(self, paths: Iterable[str], told: Iterable[str] = ()) -> TrainableVariables:
        """Those among them that some term reaches; warns of the model's that none does.

        It warns of networks outside the model too.

        Args:
          paths: that some term reaches.
          told: names of networks of which the run has warned before.
        Raises:
          ValueError: none is reached.
        """
        reached = set(paths)
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
        return replace(
            self,
            parameters={p: v for p, v in self.parameters.items() if p not in unreached},
            owners={path: owner for path, owner in self.owners.items() if path in reached},
            networks=self._reached_networks(reached, told),
        )

    def _reached_networks(self, reached: set[str], told: Iterable[str]) -> tuple[Network, ...]:
        networks = tuple(n for n in self.networks if reached.intersection(n.paths))
        _tell(n for n in networks if n.name not in told and self._by_chance(n))
        return networks

    def _by_chance(self, network: Network) -> bool:
        """Whether no group is named for a network."""
        return any(self.groups.get(path, WHOLE) == WHOLE for path in network.paths)


def _tell(networks: Iterable[Network]) -> None:
    for network in networks:
        sentence = str(network)
        warnings.warn(
            f"{sentence[0].upper()}{sentence[1:]}, a network outside the model. If it is to stay "
            "as it is, set its trainable = False; a group of groups= that names it says that it is "
            "to train.",
            stacklevel=2,
        )


def find_trainables(
    watched,
    model,
    *,
    groups,
    optimizers: Optimizers,
    places: list,
    terms: Sequence = (),
    dials: Callable = list,
) -> TrainableVariables:
    """The variables that a step may train.

    Args:
      watched: `tf.Variable`s that the tape of a step watched.
      model: the Keras model.
      groups: of `Trainer(groups=)`.
      optimizers: which own the variables.
      places: (term name, object) pairs that may hold loss parameters, for their names.
      terms: those of the places that are of terms.
      dials: () -> `tf.Variable`s that are their user's to set.
    Raises:
      ValueError: a variable of the model in no group.
    """
    outside = find_parameters(watched, model)
    read_only = {id(variable) for variable in dials()} if outside else set()
    whose = find_owners(outside)
    learning = [v for v in outside if id(v) not in read_only and whose.trains(v)]
    of_model = by_path(model.trainable_variables)
    named = name_parameters(learning, places, whose.variables)
    parameters = {f"{name} (loss)" if name in of_model else name: v for name, v in named.items()}
    variables = {**of_model, **parameters}
    group_of = _group_of(groups, variables, model, of_model)
    networks = find_networks(parameters, whose, model)
    switches = Switches.of(model, [switch for v in outside for switch in whose.of(v)])
    return TrainableVariables(
        variables,
        parameters,
        _owners(variables, parameters, group_of, optimizers),
        group_of,
        tuple(_with_reader(network, parameters, terms) for network in networks),
        switches,
    )


def _group_of(groups, variables: dict, model, of_model: dict) -> dict[str, str]:
    """path -> its group, of what trains.

    Raises:
      ValueError: a variable of the model in no group.
    """
    members = partition(groups, variables, by_path(model.variables))
    group_of = {path: group for group, paths in members.items() for path in paths}
    loose = [path for path in of_model if path not in group_of]
    if loose:
        raise TermwiseError(
            f"Variables in no group: {', '.join(loose)}. Add them to one of groups= "
            f"({', '.join(members)}); a group without an optimizer is frozen."
        )
    return group_of


def _with_reader(network: Network, parameters: dict, terms: Sequence) -> Network:
    variables = [tensor_variable(parameters[path]) for path in network.paths]
    return network._replace(term=term_that_reaches(variables, terms))


def _owners(variables: dict, parameters: dict, group_of: dict, optimizers) -> dict[str, str]:
    """path -> the optimizer's group, of those that have one."""
    owners = {}
    for path in variables:
        owner = optimizers.owner(group_of.get(path), path if path in parameters else None)
        if owner is not None:
            owners[path] = owner
    return owners
