"""Terms that need more than labels and predictions: the model, its inputs, further passes.

Each is a `losses.Term` for `Trainer(terms=)`, and counts two replicas as one.
"""

from losses.terms.adversarial import AdversarialRegularization
from losses.terms.consistency import Consistency
from losses.terms.constraint import Constraint
from losses.terms.gaussian_kl import GaussianKL
from losses.terms.gradient_penalty import GradientPenalty
from losses.terms.mean_teacher import MeanTeacher
from losses.terms.pde import PDEResidual, Squares, derivative
from losses.terms.virtual_adversarial import VirtualAdversarial
from losses.terms.weight_penalty import WeightPenalty

__all__ = [
    "AdversarialRegularization",
    "Consistency",
    "Constraint",
    "GaussianKL",
    "GradientPenalty",
    "MeanTeacher",
    "PDEResidual",
    "Squares",
    "VirtualAdversarial",
    "WeightPenalty",
    "derivative",
]
