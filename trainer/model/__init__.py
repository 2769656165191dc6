"""The Keras model as the Trainer takes it: built, walked, exported, and its variables.

Knows nothing of terms, steps or files of a run.
"""

from trainer.model.build import (
    build_model,
    call_model,
    compiled_arguments,
    make_model,
    may_add_losses,
    output_names,
)
from trainer.model.export import Export
from trainer.model.variables import by_path, free_name, read, tensor_variable

__all__ = [
    "Export",
    "build_model",
    "by_path",
    "call_model",
    "compiled_arguments",
    "free_name",
    "make_model",
    "may_add_losses",
    "output_names",
    "read",
    "tensor_variable",
]
