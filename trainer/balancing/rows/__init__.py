"""Rows of a Jacobian that are never written out: a layer's inputs and its gradients tell as much.

Reads the graph of a forward pass and changes nothing in it.
"""

from trainer.balancing.rows.ancestry import Ancestry, traced
from trainer.balancing.rows.factored_rows import FactoredRows, factored, pays
from trainer.balancing.rows.uses import Use, uses_of

__all__ = ["Ancestry", "FactoredRows", "Use", "factored", "pays", "traced", "uses_of"]
