"""What is minimised: losses, terms, their weights and parameters. Knows nothing of the loop."""

from losses import balancing, schedules
from losses.catalog.contrastive import Contrastive, NPairs, NTXent, SupCon
from losses.catalog.focal import BinaryFocal, CategoricalFocal, SparseFocal
from losses.catalog.iou import IoU
from losses.catalog.likelihood import GaussianNLL, StudentTNLL
from losses.catalog.regression import Charbonnier, Quantile
from losses.catalog.robust import AdaptiveRobust, GeneralRobust
from losses.catalog.segmentation import Dice, Tversky
from losses.catalog.triplet import Triplet, TripletMargin
from losses.catalog.wasserstein import Wasserstein
from losses.catalog.weighted import WeightedMSE, WeightedRMSE
from losses.catalog.yolo import YOLOv3
from losses.errors import TermwiseError
from losses.objective.layout import Layout as Layout
from losses.objective.objective import Described as Described
from losses.objective.objective import Objective as Objective
from losses.objective.parameter import Parameter
from losses.objective.ratio import Ratio
from losses.objective.reduction import reduce_values as reduce_values
from losses.objective.registry import get
from losses.objective.step import Step
from losses.objective.term import Term, term
from losses.objective.weights import Weight
from losses.terms.adversarial import AdversarialRegularization
from losses.terms.consistency import Consistency
from losses.terms.gaussian_kl import GaussianKL
from losses.terms.gradient_penalty import GradientPenalty
from losses.terms.pde import PDEResidual, derivative
from losses.terms.virtual_adversarial import VirtualAdversarial
from losses.terms.weight_penalty import WeightPenalty
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
    "Contrastive",
    "Dice",
    "GaussianKL",
    "GaussianNLL",
    "GeneralRobust",
    "GradientPenalty",
    "IoU",
    "NPairs",
    "NTXent",
    "PDEResidual",
    "Parameter",
    "Quantile",
    "Ratio",
    "SparseFocal",
    "Step",
    "StudentTNLL",
    "SupCon",
    "Term",
    "TermwiseError",
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
    "schedules",
    "term",
]
