"""What `loss=` takes, as named terms: of a model's outputs, or of sources of data."""

from losses.objective.compiled.by_source import keys_are_sources, name_losses_by_source
from losses.objective.compiled.ratios import (
    CompiledLoss,
    compiled_ratios,
    name_losses,
    outputs_of_losses,
)

__all__ = [
    "CompiledLoss",
    "compiled_ratios",
    "keys_are_sources",
    "name_losses",
    "name_losses_by_source",
    "outputs_of_losses",
]
