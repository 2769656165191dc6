"""The update: one Keras optimizer per group, applied once to gradients summed over replicas."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.objective.outputs import suggestion
from trainer.data.batch import is_whole
from trainer.distributed.strategies import is_default
from trainer.model.variables import read, tensor_variable
from trainer.optimizers.fused import FusedUpdate, fuse
from trainer.optimizers.groups import WHOLE, check_kind, check_names

PARAMETERS = "loss_parameters"  # the group of loss parameters that have their own optimizer


@dataclass
class Updated:
    """The variables one optimizer updates, and every how many steps."""

    group: str
    optimizer: keras.optimizers.Optimizer
    held: dict  # path -> variable, or its twin
    every: int
    fused: FusedUpdate | None

    def apply(self, pairs) -> None:
        """One update by (gradient, variable) pairs, in few kernels where they are known."""
        with self.fused.applying() if self.fused else contextlib.nullcontext():
            self.optimizer.apply_gradients(pairs)


class Optimizers:
    """The optimizers of a run.

    Args:
      strategy: the run's strategy; optimizers are built inside its scope.
      optimizer: as `Model.compile` takes it, or a dict of these by group.
      groups: as `Trainer` takes them, or None.
      update_every: dict group -> steps between its updates; 1 by default.
      loss_parameter_optimizer: for the loss parameters; the model's own by default.
      scaled: bool; each optimizer that does not scale its loss is made one that does.
    Raises:
      ValueError: an unknown optimizer or group name.
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
        self.strategy = strategy
        self._scale_losses = scaled
        self.updated: list[Updated] = []
        self.twins: dict[str, keras.Variable] = {}  # of variables made outside the scope
        check_kind(groups)
        given: Mapping
        if isinstance(optimizer, Mapping) and "class_name" not in optimizer:
            if groups is None:
                raise TermwiseError(
                    "optimizer= is a dict by group, but there are no groups=. Pass groups="
                    f"{{{next(iter(optimizer), 'name')!r}: 'pattern of variable paths', ...}}."
                )
            check_names(optimizer, groups, "optimizer=")
            given = optimizer
        else:
            given = {name: optimizer for name in groups or {WHOLE: None}}
        if update_every is not None and not isinstance(update_every, Mapping):
            raise TermwiseTypeError(
                f"update_every={update_every!r}. Give a dict of group -> steps between its "
                "updates, such as {'generator': 5}."
            )
        self.every = dict(update_every or {})
        check_names(self.every, groups or {}, "update_every=")
        for group, every in self.every.items():
            if not is_whole(every) or every < 1:
                raise TermwiseError(
                    f"update_every={{{group!r}: {every!r}}}: give a whole number of at least 1."
                )
        with strategy.scope():
            self.of_group = {
                name: self._make(one, alone=len(given) == 1)
                for name, one in given.items()
                if one is not None
            }
            if loss_parameter_optimizer is not None:
                self.of_group[PARAMETERS] = self._make(loss_parameter_optimizer, alone=True)

    def _make(self, given, alone):
        """A Keras optimizer that belongs to this run's strategy and to nobody else."""
        if inspect.isclass(given) and issubclass(given, keras.optimizers.Optimizer):
            raise TermwiseTypeError(
                f"optimizer={given.__name__} is a class. Give its name, or an object: "
                f"{given.__name__}(...)."
            )
        try:
            optimizer = keras.optimizers.get(given)
        except (ValueError, TypeError) as error:
            hint = suggestion(given, _names()) if isinstance(given, str) else ""
            raise TermwiseError(
                f"optimizer={given!r}: Keras knows no such optimizer. Give a name such as 'adam', "
                f"or a keras.optimizers object.{hint}"
            ) from error
        if optimizer is given:
            if optimizer.built:
                raise TermwiseError(
                    f"optimizer= is a {type(given).__name__} that was built for other variables; "
                    "its moments would be lost. Pass a new one: "
                    f"{type(given).__name__}.from_config(optimizer.get_config())."
                )
            if not alone or tf.distribute.has_strategy():
                optimizer = type(given).from_config(given.get_config())
        if self._scale_losses and not _scales(optimizer):
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale_optimizer")
        return optimizer

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
        """Makes the slots; called once, after the first trace has found every variable.

        Args:
          owners: path -> the optimizer's group.
          variables: path -> variable.
          parameters: the paths that are loss parameters; weight decay leaves them alone.
        """
        for group, optimizer in self.of_group.items():
            paths = [path for path, owner in owners.items() if owner == group]
            if not paths:
                continue
            decayed = getattr(optimizer, "inner_optimizer", optimizer)
            with self.strategy.scope():
                held = {path: self._own(variables[path], path) for path in paths}
                excluded = [held[path] for path in paths if path in parameters]
                if excluded:
                    decayed.exclude_from_weight_decay(var_list=excluded)
                optimizer.build(list(held.values()))
            every = self.every.get(group, 1)
            fused = fuse(optimizer, list(held.values()), self.strategy)
            self.updated.append(Updated(group, optimizer, held, every, fused))

    def _own(self, variable, path):
        """The variable itself, or a twin in the scope of one made outside it.

        An optimizer takes variables of one kind only. It updates the twin, which is set to the
        variable before each update and gives it its value after.
        """
        made = tensor_variable(variable)
        if is_default(self.strategy) or self.strategy.extended.variable_created_in_scope(made):
            return variable
        twin = keras.Variable(read(variable), dtype=made.dtype.name, name=path.replace("/", "_"))
        twin.constraint = getattr(variable, "constraint", None)
        self.twins[path] = twin
        return twin

    @property
    def accumulation(self) -> int:
        """How many steps' gradients one update adds up; 1 where none does."""
        found = {_accumulated(optimizer) for optimizer in self.of_group.values()} - {1}
        if len(found) > 1:
            raise TermwiseError(
                f"The optimizers have gradient_accumulation_steps of {sorted(found)}. Give all "
                "that accumulate the same number."
            )
        return found.pop() if found else 1

    def accumulates(self, owner: str) -> bool:
        """Whether the optimizer of a group adds up gradients of several steps."""
        return _accumulated(self.of_group[owner]) > 1

    @property
    def scaled(self) -> bool:
        """Whether some optimizer scales the loss (mixed precision)."""
        return any(_scales(one) for one in self.of_group.values())

    def scales(self):
        """float32 [optimizers], what each multiplies the total by; None where none does."""
        if not self.scaled:
            return None
        # one that scales is asked once it is built: before, it answers with a constant
        return tf.stack(
            [
                tf.convert_to_tensor(one.scale_loss(tf.ones([]))) if one.built else tf.ones([])
                for one in self.of_group.values()
            ]
        )

    def apply(self, gradients: dict, variables: dict, step, finite=None) -> None:
        """One update of every group that is due, in cross-replica context.

        Args:
          gradients: path -> gradient summed over the replicas, times its optimizer's scale.
          variables: path -> variable.
          step: int64 [], the global step, counted from 0.
          finite: bool [], whether every gradient is; None applies them whatever they are.
        """
        for updated in self.updated:
            pairs = [(gradients[p], v) for p, v in updated.held.items() if p in gradients]
            if not pairs:
                continue
            outside = [path for path in updated.held if path in self.twins]
            for path in outside:
                self.twins[path].assign(tf.convert_to_tensor(variables[path]))
            due = None
            if updated.every > 1:
                due = tf.equal((step + 1) % updated.every, 0)
            # one that scales its loss sees every gradient: it lowers its scale and skips
            if finite is not None and not _scales(updated.optimizer):
                due = finite if due is None else due & finite
            if due is None:
                updated.apply(pairs)
            else:
                tf.cond(due, _applied(updated, pairs), lambda: tf.constant(False))
            for path in outside:
                variables[path].assign(tf.convert_to_tensor(self.twins[path]))

    @contextlib.contextmanager
    def averages(self, variables: dict):
        """Within it the weights are their moving averages, where an optimizer keeps them."""
        swapped = []
        for updated in self.updated:
            keeper = getattr(updated.optimizer, "inner_optimizer", updated.optimizer)
            # before the first update the averages are zeros
            if keeper.use_ema and int(read(keeper.iterations)):
                held = updated.held
                for path in held:
                    value = tf.identity(tf.convert_to_tensor(variables[path]))
                    swapped.append((variables[path], value))
                keeper.finalize_variable_values(list(held.values()))
                for path in set(held) & set(self.twins):
                    variables[path].assign(tf.convert_to_tensor(self.twins[path]))
        try:
            yield
        finally:
            for variable, value in swapped:
                variable.assign(value)


def needs_scale(model) -> bool:
    """Whether a model's policy is mixed_float16, for which Model.compile scales the loss too."""
    return model.dtype_policy.name == "mixed_float16"


def _names() -> list[str]:
    """What `keras.optimizers.get` knows by name."""
    found = vars(keras.optimizers).items()
    return [
        name.lower()
        for name, kind in found
        if inspect.isclass(kind) and issubclass(kind, keras.optimizers.Optimizer)
    ]


def _accumulated(optimizer) -> int:
    keeper = getattr(optimizer, "inner_optimizer", optimizer)
    return keeper.gradient_accumulation_steps or 1


def _scales(optimizer) -> bool:
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return scaled or bool(optimizer.loss_scale_factor)


def _applied(updated, pairs):
    def apply():
        updated.apply(pairs)
        return tf.constant(True)

    return apply
