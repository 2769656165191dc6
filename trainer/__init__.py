"""The loop: a Trainer in which every term of the objective is explicit."""

from trainer.ledger import History, Nonfinite
from trainer.trainer import Trainer

__all__ = ["History", "Nonfinite", "Trainer"]
