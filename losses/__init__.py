"""What is minimised: losses, terms, their weights and parameters. Knows nothing of the loop."""

from losses import balancing, schedules
from losses.catalog import (
    AdaptiveRobust,
    BinaryFocal,
    CategoricalFocal,
    Charbonnier,
    Contrastive,
    Dice,
    GaussianNLL,
    GeneralRobust,
    InfoNCE,
    IoU,
    NPairs,
    NTXent,
    Quantile,
    SparseCrossentropy,
    SparseFocal,
    StudentTNLL,
    SupCon,
    Triplet,
    TripletMargin,
    Tversky,
    Wasserstein,
    WeightedMSE,
    WeightedRMSE,
    YOLOv3,
    noncrossing,
)
from losses.errors import TermwiseError
from losses.objective import Described as Described
from losses.objective import Layout as Layout
from losses.objective import Objective as Objective
from losses.objective import Parameter, Ratio, Step, Term, Trains, Weight, get
from losses.objective import reduce_values as reduce_values
from losses.objective.term import term
from losses.terms import (
    AdversarialRegularization,
    Consistency,
    Constraint,
    GaussianKL,
    GradientPenalty,
    PDEResidual,
    Squares,
    VirtualAdversarial,
    WeightPenalty,
    derivative,
)
from losses.uncertainty_weight import UncertaintyWeight

# The machinery of a loop (Layout, Described, Objective, reduce_values) can be reached here but is
# not listed: it belongs to losses.objective, and may change.
__all__ = [
    "AdaptiveRobust",
    "AdversarialRegularization",
    "BinaryFocal",
    "CategoricalFocal",
    "Charbonnier",
    "Consistency",
    "Constraint",
    "Contrastive",
    "Dice",
    "GaussianKL",
    "GaussianNLL",
    "GeneralRobust",
    "GradientPenalty",
    "InfoNCE",
    "IoU",
    "NPairs",
    "NTXent",
    "PDEResidual",
    "Parameter",
    "Quantile",
    "Ratio",
    "SparseCrossentropy",
    "SparseFocal",
    "Squares",
    "Step",
    "StudentTNLL",
    "SupCon",
    "Term",
    "TermwiseError",
    "Trains",
    "Triplet",
    "TripletMargin",
    "Tversky",
    "UncertaintyWeight",
    "VirtualAdversarial",
    "Wasserstein",
    "Weight",
    "WeightPenalty",
    "WeightedMSE",
    "WeightedRMSE",
    "YOLOv3",
    "balancing",
    "derivative",
    "get",
    "noncrossing",
    "schedules",
    "term",
]
