"""Rows of a Jacobian in one backward pass, or never written out, as the graph of a pass allows.

Reads the graph of a forward pass and changes nothing in it.
"""

from trainer.balancing.rows.ancestry import Ancestry, traced
from trainer.balancing.rows.factored_rows import FactoredRows, pays
from trainer.balancing.rows.one_pass import shared_rows
from trainer.balancing.rows.shared_part import SharedPart, find_shared_part
from trainer.balancing.rows.stacked import Stacked, added, through
from trainer.balancing.rows.uses import Use, uses_of

__all__ = [
    "Ancestry",
    "FactoredRows",
    "SharedPart",
    "Stacked",
    "Use",
    "added",
    "find_shared_part",
    "pays",
    "shared_rows",
    "through",
    "traced",
    "uses_of",
]
