"""Balancing the terms of a step: who weighs them, by what, and what that did.

Stands on step/ no further than its sums: tensors in, weights or a direction out.
"""

from trainer.balancing.balanced_terms import BalancedTerms, check_balancer
from trainer.balancing.diagnostics import Diagnostics, check_diagnostics_every
from trainer.balancing.direction import dense, mirrored
from trainer.balancing.probe import probe_residuals, probe_terms
from trainer.balancing.weightings import choose_weighting

__all__ = [
    "BalancedTerms",
    "Diagnostics",
    "check_balancer",
    "check_diagnostics_every",
    "choose_weighting",
    "dense",
    "mirrored",
    "probe_residuals",
    "probe_terms",
]
