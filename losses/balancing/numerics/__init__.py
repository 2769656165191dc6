"""The mathematics that balancers share, a module for each subject, on small float64 tensors.

All of it compiles under XLA and gives finite numbers.
"""

from losses.balancing.numerics import (
    alpha_fair,
    draws,
    eigen,
    gramian,
    quadratic_program,
    safe_math,
)

__all__ = ["alpha_fair", "draws", "eigen", "gramian", "quadratic_program", "safe_math"]
