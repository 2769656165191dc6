"""What a subclass of `Trainer` overrides, and what it does by default."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from losses.naming import is_slip
from losses.objective.step import Step
from losses.terms.constraint import constraints_of
from trainer.ledger.history import History
from trainer.loop.train_step import apply_gradients, compute_gradients, current_context
from trainer.model.build import call_model
from trainer.model.variables import read
from trainer.persistence.workdir import Workdir
from trainer.run.run import Run
from trainer.step.outputs import StepRecord


class Parts(keras.callbacks.Callback):
    """What every `Trainer` has by name: to be read, and set by nobody but its constructor."""

    def __setattr__(self, name: str, value) -> None:
        if name in RESERVED:
            raise TermwiseError(
                f"{type(self).__name__} sets self.{name}, which every Trainer has. Give the "
                f"attribute another name, such as self.own_{name}."
            )
        super().__setattr__(name, value)

    def _set(self, **parts: Any) -> None:
        """Sets what the properties of these names show."""
        object.__setattr__(self, "_parts", {**vars(self).get("_parts", {}), **parts})

    @property
    def _run(self) -> Run:
        return self._parts["run"]

    @property
    def model(self) -> keras.Model:
        """The Keras model."""
        return self._parts["model"]

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy of the run."""
        return self._parts["strategy"]

    @property
    def terms(self) -> list:
        """The `losses.Term` objects of `terms=` and `build_terms`."""
        return self._parts["terms"]

    @property
    def multipliers(self) -> dict[str, float]:
        """name -> the multiplier of each `losses.Constraint` among the terms, as it is now."""
        constraints = constraints_of(self.terms)
        return {each.name: float(read(each.multiplier.state.multiplier)) for each in constraints}

    @property
    def workdir(self) -> Workdir | None:
        """The folder of the run; its `path` is a `pathlib.Path`."""
        return self._parts["workdir"]

    @property
    def name(self) -> str:
        """The name of the run."""
        return self._parts["name"]

    @property
    def config(self) -> Any:
        """The plain values of `config=`, or None."""
        return self._parts["config"]

    @property
    def seed(self) -> int:
        """The seed of the shuffling of arrays."""
        return self._parts["seed"]

    @property
    def history(self) -> History | None:
        """What the last `fit` returned, or would have where it was broken off; None before any."""
        return self._parts["history"]

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files of the run."""
        return self._run.hosts.chief

    @property
    def step(self) -> tf.Variable:
        """int64 [], the global step: how many batches the run has seen."""
        program = self._run.program
        if not tf.executing_eagerly():
            return program.counter
        # all copies are alike, and the variable of a strategy is no number to Python
        return program.placement.strategy.experimental_local_results(program.counter)[0]


class Hooks(Parts):
    """The methods of a `Trainer` that research changes; each has the natural default."""

    def build_model(self) -> keras.Model:
        """The model, when the constructor is given none; called inside the strategy's scope."""
        raise TermwiseError(
            f"{type(self).__name__} was given no model. Pass model=, or override build_model()."
        )

    def build_terms(self) -> Iterable:
        """`losses.Term` objects beside those of `terms=`; called inside the strategy's scope."""
        return ()

    def forward(self, step: Step):
        """The model's outputs of a step's inputs, in replica context."""
        return call_model(self.model, step.x, step.training)

    def compute_terms(self, step: Step) -> dict[str, Any]:
        """The terms of a step by name, in replica context.

        An override that adds `terms["name"] = ...` (one value per example, a scalar or a
        `losses.Ratio`) is all that a new term needs.
        """
        return self._run.program.objective.compute_terms(step)

    def train_step(self, batch):
        """One update from one global batch, in cross-replica context, inside the loop.

        Returns the `StepRecord` of `compute_gradients`, which fills the ledger.
        """
        gradients, record = self.compute_gradients(batch)
        self.apply_gradients(gradients, record)
        return record

    def compute_gradients(self, batch):
        """Gradients of the total, summed over the replicas: path -> gradient; and a StepRecord."""
        return compute_gradients(current_context(), batch)

    def apply_gradients(self, gradients, record) -> None:
        """One update of every group that is due."""
        apply_gradients(current_context(), gradients, record)


def checked_record(record) -> StepRecord:
    """What `train_step` returned.

    Raises:
      TypeError: it is no `StepRecord`.
    """
    if isinstance(record, StepRecord):
        return record
    raise TermwiseTypeError(
        f"train_step() returned {type(record).__name__}. It is given a global batch and returns "
        "the record of its passes: gradients, record = self.compute_gradients(batch); "
        "self.apply_gradients(gradients, record); return record. Values to log are terms of weight "
        "0, or metrics."
    )


# methods that a subclass of Keras's Model overrides -> what a subclass of Trainer does instead
OF_A_MODEL = {
    "compute_loss": "override compute_terms(step), which returns every term by its name",
    "compute_metrics": "pass metrics=, or return a term of weight 0 from compute_terms(step)",
    "test_step": "override compute_terms(step), which evaluate() calls too",
    "predict_step": "override forward(step)",
    "call": "override forward(step)",
    "compile": "give its arguments to the constructor",
}


def check_methods(kind: type) -> None:
    """What a subclass defines and nobody would call.

    Args:
      kind: a subclass of `Trainer`.
    Raises:
      ValueError: a method that a subclass of Keras's Model overrides.
    Warns of one whose name is a letter away from a hook's, which is not overridden.
    """
    below = kind.__mro__[: kind.__mro__.index(Hooks)]
    own = {n: v for each in below if not _is_ours(each) for n, v in vars(each).items()}
    for name, instead in OF_A_MODEL.items():
        if callable(own.get(name)):
            raise TermwiseError(
                f"{kind.__name__} defines {name}(), which belongs to a Keras model and is called "
                f"by no Trainer: {instead}."
            )
    hooks = [name for name in vars(Hooks) if not name.startswith("_")]
    for name, value in own.items():
        if callable(value) and name not in hooks:
            meant = [h for h in hooks if h not in own and is_slip(name, h)]
            if meant:
                warnings.warn(
                    f"{kind.__name__} defines {name}(), which the Trainer does not call. Did you "
                    f"mean {meant[0]}()?",
                    stacklevel=3,
                )


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "trainer"


STEP_HOOKS = ("forward", "compute_terms", "train_step")


def overridden(kind: type) -> frozenset[str]:
    """The hooks of a step that a subclass of `Trainer` overrides."""
    return frozenset(name for name in STEP_HOOKS if getattr(kind, name) is not vars(Hooks)[name])


# what a subclass may override or read, but not set
RESERVED = frozenset(
    [
        *(name for kind in (Parts, Hooks) for name in vars(kind) if not name.startswith("_")),
        *("optimizer", "loss_parameters", "from_compiled", "describe", "build", "fit"),
        *("evaluate", "examples", "predict", "follow", "set_weight"),
        *("replay", "export", "try_step", "_run", "_parts"),
    ]
)
