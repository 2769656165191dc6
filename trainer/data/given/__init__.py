"""What users pass as they would to Keras: its arguments, and arrays of other libraries."""

from __future__ import annotations

from trainer.data.given.arrays_of_others import array_of, check_aligned
from trainer.data.given.as_in_keras import METHODS, FitData, fit_data, read_data, split_off
from trainer.data.given.class_weight import checked_class_weight, class_weights

__all__ = [
    "METHODS",
    "FitData",
    "array_of",
    "check_aligned",
    "checked_class_weight",
    "class_weights",
    "fit_data",
    "read_data",
    "split_off",
]
