"""What is minimised: every term as two sums over the examples, its weight, and their table.

The loop gives a `Step` and gets Ratios by name; `Layout` makes vectors of them and values again.
"""

from losses.objective import class_ids
from losses.objective.compiled import compiled_ratios, name_losses
from losses.objective.layout import Layout
from losses.objective.objective import NOTHING, Described, Objective
from losses.objective.outputs import by_output, flatten, match_labels, name_outputs
from losses.objective.parameter import Parameter
from losses.objective.ratio import Ratio
from losses.objective.reduction import (
    RatioLoss,
    mask_of,
    reduce_values,
    with_mask,
    with_trailing_axes,
)
from losses.objective.registry import get, made, register_loss
from losses.objective.step import Step, model_inputs
from losses.objective.term import Term, Trains, listed_terms, placed_ratios
from losses.objective.weights import Weight, heads

__all__ = [
    "NOTHING",
    "Described",
    "Layout",
    "Objective",
    "Parameter",
    "Ratio",
    "RatioLoss",
    "Step",
    "Term",
    "Trains",
    "Weight",
    "by_output",
    "class_ids",
    "compiled_ratios",
    "flatten",
    "get",
    "heads",
    "listed_terms",
    "made",
    "mask_of",
    "match_labels",
    "model_inputs",
    "name_losses",
    "name_outputs",
    "placed_ratios",
    "reduce_values",
    "register_loss",
    "with_mask",
    "with_trailing_axes",
]
