"""Balancing the terms of a step: who weighs them, by what, and what that did.

Stands on step/ no further than its sums: tensors in, weights or a direction out.
"""
