"""Methods of Keras that a model overrides and a Trainer does not call: refused, or told."""

from __future__ import annotations

import warnings
from collections.abc import Collection

import keras

from losses.errors import TermwiseError
from losses.objective.model_terms import overrides

# method of keras.Model -> where a Trainer has what it does
PLACES = {
    "train_step": "Put what it minimises into compute_terms() of a Trainer, and how it updates "
    "into train_step().",
    "test_step": "Put what it computes into forward() or compute_terms() of a Trainer.",
    "predict_step": "Put what it computes into forward() of a Trainer.",
    "compute_metrics": "Pass metrics=, or let a layer hold and update the metric.",
    "compute_loss": "Call it in compute_terms() of the Trainer, or take it out.",
}


def check_overrides(model: keras.Model, hooks: Collection[str], replicas: int, loss) -> bool:
    """Whether the model's `compute_loss()` is the objective.

    Args:
      model: a Keras model.
      hooks: the methods that a subclass of the Trainer overrides.
      replicas: int, over how many a step runs.
      loss: of `Trainer(loss=)`.
    Raises:
      ValueError: a `train_step` whose work nothing of the Trainer's does, or a `compute_loss`
        that cannot be the objective.
    """
    own_loss = overrides(model, "compute_loss")
    for method in PLACES:
        if overrides(model, method) and (method != "compute_loss" or "compute_terms" in hooks):
            _tell(model, method, refused=method == "train_step" and not hooks)
    if not own_loss or "compute_terms" in hooks:
        return False
    if loss is not None:
        raise TermwiseError(
            f"The model {model.name!r} overrides compute_loss(), which is its whole objective, and "
            "loss= is another. Leave out loss=, or take compute_loss() out of the model."
        )
    if replicas > 1:
        raise TermwiseError(
            f"The model {model.name!r} overrides compute_loss(), whose one value cannot be added "
            f"up over {replicas} replicas. Give its losses as loss= or terms=, or train on one "
            "replica."
        )
    return True


def _tell(model, method: str, refused: bool) -> None:
    """Warns of an overridden method, or raises where it is refused."""
    told = (
        f"The model {model.name!r} overrides {method}(), which a Trainer does not call. "
        f"{PLACES[method]}"
    )
    if refused:
        raise TermwiseError(told)
    warnings.warn(told, stacklevel=6)
