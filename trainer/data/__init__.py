"""Where batches come from: pipelines or arrays, their parts, and a replica's share of one.

Knows nothing of models, terms or steps.
"""

from trainer.data.augment import augmented
from trainer.data.batch import examples_in, is_whole, share, unpack
from trainer.data.dataset import DatasetSource
from trainer.data.given.class_weight import checked_class_weight, class_weights
from trainer.data.open import default_batch, open_data

__all__ = [
    "DatasetSource",
    "augmented",
    "checked_class_weight",
    "class_weights",
    "default_batch",
    "examples_in",
    "is_whole",
    "open_data",
    "share",
    "unpack",
]
