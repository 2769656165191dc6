"""The update: one Keras optimizer per group, applied once to gradients summed over replicas."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import keras
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.distributed.strategies import is_default
from trainer.model.variables import free_name, read, tensor_variable
from trainer.optimizers.arguments import keras_optimizer, optimizers_by_group, update_intervals
from trainer.optimizers.copies import copy_optimizer, made_in_scope
from trainer.optimizers.fused import FusedUpdate, fuse
from trainer.optimizers.groups import WHOLE, check_kind
from trainer.optimizers.loss_scale import loss_scales, scales_loss, unwrapped, with_loss_scale
from trainer.optimizers.rebuilt import rebuild
from trainer.optimizers.trained_state import carry_state, check_built_for
from trainer.optimizers.weight_decay import exclude_from_decay

PARAMETERS = "loss_parameters"  # the group of loss parameters that have their own optimizer


@dataclass
class UpdateGroup:
    """The variables one optimizer updates, and every how many steps.

    Attributes:
      variables: path -> variable, or its mirrored copy, of all that have slots.
      originals: path -> the variable itself.
    """

    name: str
    optimizer: keras.optimizers.Optimizer
    variables: dict
    originals: dict
    every: int
    fused: FusedUpdate | None

    def apply(self, pairs) -> None:
        """One update by (gradient, variable) pairs, in few kernels where they are known."""
        if self.optimizer.loss_scale_factor:  # by which Keras can divide no sparse gradient
            pairs = [(tf.convert_to_tensor(g), v) for g, v in pairs]
        (self.fused or self.optimizer).apply_gradients(pairs)

    def due(self, step, finite):
        """bool [], whether a step updates the group; None where every step does.

        Args:
          step: int64 [], the global step, counted from 0.
          finite: bool [], whether every gradient is; None where that does not matter.
        """
        due = None
        if self.every > 1:
            due = tf.equal((step + 1) % self.every, 0)
        # one that scales its loss is given every gradient: it lowers its scale and skips
        if finite is not None and not scales_loss(self.optimizer):
            due = finite if due is None else due & finite
        return due


class Optimizers:
    """The optimizers of a run.

    Args:
      strategy: the run's strategy; optimizers are built inside its scope.
      optimizer: as `Model.compile` takes it, or a dict of these by group.
      groups: as `Trainer` takes them, or None.
      update_every: dict group -> steps between its updates; 1 by default.
      loss_parameter_optimizer: for the loss parameters; the model's own by default.
      scaled: bool; each optimizer that does not scale its loss is made one that does.
    Attributes:
      of_group: group -> Keras optimizer.
      groups: as given.
      updated: one `UpdateGroup` for each group that has variables; empty before `build`.
      mirrored_copies: path -> the copy in the strategy's scope of a variable made outside it.
    Raises:
      ValueError: an unknown optimizer or group name, or an optimizer that cannot be copied.
      TypeError: a class of optimizers, a MultiOptimizer.
    """

    def __init__(
        self,
        strategy,
        optimizer,
        *,
        groups=None,
        update_every=None,
        loss_parameter_optimizer=None,
        scaled=False,
    ):
        self.strategy, self.groups = strategy, groups
        self._built: dict[str, UpdateGroup] = {}
        self.mirrored_copies: dict[str, keras.Variable] = {}
        check_kind(groups)
        arguments = dict(optimizers_by_group(optimizer, groups))
        self.every = update_intervals(update_every, groups)
        if loss_parameter_optimizer is not None:
            arguments[PARAMETERS] = loss_parameter_optimizer
        self.of_group: dict[str, keras.optimizers.Optimizer] = {}
        self._trained: dict[str, keras.optimizers.Optimizer] = {}  # whose copies go on
        self._in_use: list = []
        with strategy.scope():
            for group, argument in arguments.items():
                if argument is not None:
                    optimizer = self._make(argument, group)
                    self.of_group[group] = with_loss_scale(optimizer) if scaled else optimizer

    def _make(self, argument, group):
        """A Keras optimizer that belongs to this run's strategy and to this group alone."""
        optimizer = keras_optimizer(argument)
        if optimizer is not argument:  # of a name or a configuration
            return optimizer
        shared = any(argument is used for used in self._in_use)
        self._in_use.append(argument)
        if not (shared or argument.built) and made_in_scope(argument):
            return argument
        if argument.built:
            self._trained[group] = argument
        return copy_optimizer(argument)

    @property
    def optimizer(self):
        """The model's optimizer; with groups, a dict by group."""
        if set(self.of_group) <= {WHOLE, PARAMETERS}:
            return self.of_group.get(WHOLE) or self.of_group.get(PARAMETERS)
        return dict(self.of_group)

    def owner(self, group: str | None, parameter: str | None) -> str | None:
        """The optimizer of a variable: the group's, or the one for loss parameters."""
        if parameter is None:
            return group if group in self.of_group else None
        if group not in (None, WHOLE):
            return group if group in self.of_group else None
        if PARAMETERS in self.of_group:
            return PARAMETERS
        if len(self.of_group) == 1:
            return next(iter(self.of_group))
        raise TermwiseError(
            f"Loss parameter {parameter!r} is in no group, and there are several optimizers: "
            f"{', '.join(map(repr, self.of_group))}. Pass loss_parameter_optimizer=, or name it "
            "in groups=."
        )

    def build(self, owners: dict[str, str], variables: dict, parameters) -> None:
        """Makes the slots: once the first trace has found every variable, and of what begins to
        train later. What no longer trains keeps its own.

        Args:
          owners: path -> the optimizer's group.
          variables: path -> variable.
          parameters: the paths that are loss parameters; weight decay leaves them alone.
        """
        if not self._built:
            for trained in self._trained.values():
                check_built_for(trained, variables.values())
        for name in self.of_group:
            mine = {path: variables[path] for path, owner in owners.items() if owner == name}
            if name in self._built:
                mine = _by_present_path(self._built[name], mine)
            self._give_slots(name, mine, parameters)

    def share(self, others: Optimizers, names: list[str]) -> None:
        """Takes the slots of some groups from other optimizers, which have them already."""
        for name in names:
            group = self._built[name] = others._built[name]
            copies = others.mirrored_copies
            self.mirrored_copies.update({p: copies[p] for p in group.variables if p in copies})

    def arrange(self, slots: dict[str, dict], parameters) -> bool:
        """Gives the groups slots for exactly these variables, in this order.

        Args:
          slots: group -> path -> variable.
          parameters: as in `build`.
        Returns:
          Whether they had others.
        """
        before = self._order_of_slots()
        for name in self.of_group:
            self._give_slots(name, slots.get(name, {}), parameters)
        return self._order_of_slots() != before

    def _order_of_slots(self) -> list:
        return [(g.name, [*map(id, g.originals.values())]) for g in self.updated]

    @property
    def updated(self) -> list[UpdateGroup]:
        """The groups that have slots, in the order of the optimizers."""
        groups = (self._built[name] for name in self.of_group if name in self._built)
        return [group for group in groups if group.variables]

    def _give_slots(self, name: str, variables: dict, parameters) -> None:
        if name in self._built:
            self._arrange(self._built[name], variables, parameters)
        elif variables:
            self._built[name] = self._build(name, variables, parameters)

    def _arrange(self, group: UpdateGroup, originals: dict, parameters) -> None:
        copies = {id(group.originals[p]): group.variables[p] for p in group.originals}
        before, optimizer = list(group.variables.values()), group.optimizer
        for path in group.originals:
            self.mirrored_copies.pop(path, None)
        with self.strategy.scope():
            arranged = {}
            for path, variable in originals.items():
                known = id(variable) in copies
                arranged[path] = copies[id(variable)] if known else self._in_scope(variable, path)
                if arranged[path] is not variable:
                    self.mirrored_copies[path] = arranged[path]
            now = list(arranged.values())
            if [*map(id, now)] != [*map(id, before)]:
                excluded = [variable for path, variable in arranged.items() if path in parameters]
                rebuild(optimizer, now, excluded)
                group.fused = fuse(optimizer, now, self.strategy)
        group.variables, group.originals = arranged, dict(originals)

    def _build(self, group, variables: dict, parameters) -> UpdateGroup:
        optimizer, trained = self.of_group[group], self._trained.get(group)
        with self.strategy.scope():
            placed = {path: self._in_scope(variable, path) for path, variable in variables.items()}
            excluded = [variable for path, variable in placed.items() if path in parameters]
            if excluded:
                exclude_from_decay(unwrapped(optimizer), excluded)
            optimizer.build(list(placed.values()))
            if trained is not None:
                # around the copy of one without a loss scale there may be one now
                wrapped = type(optimizer) is not type(trained)
                copy = unwrapped(optimizer) if wrapped else optimizer
                carry_state(trained, copy, list(variables.values()))
        fused = fuse(optimizer, list(placed.values()), self.strategy)
        return UpdateGroup(group, optimizer, placed, variables, self.every.get(group, 1), fused)

    def _in_scope(self, variable, path):
        """The variable itself, or the mirrored copy of one made outside the strategy's scope.

        An optimizer takes variables of one kind only. It updates the copy, which is set to the
        variable before each update and gives it its value after.
        """
        made = tensor_variable(variable)
        if is_default(self.strategy) or self.strategy.extended.variable_created_in_scope(made):
            return variable
        copy = keras.Variable(read(variable), dtype=made.dtype.name, name=path.replace("/", "_"))
        copy.constraint = getattr(variable, "constraint", None)
        self.mirrored_copies[path] = copy
        return copy

    @property
    def accumulation(self) -> int:
        """How many steps' gradients one update adds up; 1 where none does."""
        counts = {_accumulated(optimizer) for optimizer in self.of_group.values()} - {1}
        if len(counts) > 1:
            raise TermwiseError(
                f"The optimizers have gradient_accumulation_steps of {sorted(counts)}. Give all "
                "that accumulate the same number."
            )
        return counts.pop() if counts else 1

    def accumulates(self, owner: str) -> bool:
        """Whether the optimizer of a group adds up gradients of several steps."""
        return _accumulated(self.of_group[owner]) > 1

    @property
    def keeps_averages(self) -> bool:
        """Whether some optimizer keeps moving averages of the weights."""
        return any(unwrapped(optimizer).use_ema for optimizer in self.of_group.values())

    @property
    def scaled(self) -> bool:
        """Whether some optimizer scales the loss (mixed precision)."""
        return any(map(scales_loss, self.of_group.values()))

    def scales(self):
        """float32 [optimizers], what each multiplies the total by; None where none does."""
        return loss_scales(self.of_group.values()) if self.scaled else None

    def apply(self, gradients: dict, variables: dict, step, finite=None) -> None:
        """One update of every group that is due, in cross-replica context.

        Args:
          gradients: path -> gradient summed over the replicas, times its optimizer's scale.
          variables: path -> variable.
          step: int64 [], the global step, counted from 0.
          finite: bool [], whether every gradient is; None applies them whatever they are.
        """
        for group in self.updated:
            pairs = [(gradients[p], v) for p, v in group.variables.items() if p in gradients]
            if not pairs:
                continue
            copies = {p: c for p, c in self.mirrored_copies.items() if p in group.variables}
            for path, copy in copies.items():
                copy.assign(tf.convert_to_tensor(group.originals[path]))
            due = group.due(step, finite)
            if due is None:
                group.apply(pairs)
            else:
                tf.cond(due, _applied(group, pairs), lambda: tf.constant(False))
            for path, copy in copies.items():
                group.originals[path].assign(tf.convert_to_tensor(copy))

    @contextlib.contextmanager
    def averages(self, variables: dict):
        """Within it the weights are their moving averages, where an optimizer keeps them."""
        weights = []  # (variable, its value) of those that were replaced
        for group in self.updated:
            updating = unwrapped(group.optimizer)
            # before the first update the averages are zeros
            if not updating.use_ema or not int(read(updating.iterations)):
                continue
            training = [path for path in group.variables if path in variables]
            for path in training:
                value = tf.identity(tf.convert_to_tensor(variables[path]))
                weights.append((variables[path], value))
            updating.finalize_variable_values([group.variables[path] for path in training])
            for path in set(training) & self.mirrored_copies.keys():
                variables[path].assign(tf.convert_to_tensor(self.mirrored_copies[path]))
        try:
            yield
        finally:
            for variable, value in weights:
                variable.assign(value)


def _by_present_path(group: UpdateGroup, variables: dict) -> dict:
    """path -> variable, of those that have slots, by the paths they have now; then of new ones."""
    paths = {id(variable): path for path, variable in variables.items()}
    ordered: dict = {}
    for path, variable in group.originals.items():
        ordered[paths.get(id(variable)) or free_name(path, {**variables, **ordered})] = variable
    return {**ordered, **{p: v for p, v in variables.items() if p not in ordered}}


def _accumulated(optimizer) -> int:
    return unwrapped(optimizer).gradient_accumulation_steps or 1


def _applied(group: UpdateGroup, pairs):
    def apply():
        group.apply(pairs)
        return tf.constant(True)

    return apply
