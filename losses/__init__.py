"""What is minimised: losses, terms, their weights and parameters. Knows nothing of the loop."""

from losses import schedules
from losses.adversarial import AdversarialRegularization
from losses.classic import get
from losses.consistency import Consistency
from losses.contrastive import Contrastive, NPairs, NTXent, SupCon
from losses.focal import BinaryFocal, CategoricalFocal, SparseFocal
from losses.gaussian_kl import GaussianKL
from losses.gradient_penalty import GradientPenalty
from losses.iou import IoU
from losses.layout import Layout
from losses.likelihood import GaussianNLL, StudentTNLL
from losses.objective import Described, Objective
from losses.overlap import Dice, Tversky
from losses.parameter import Parameter
from losses.pde import PDEResidual, derivative
from losses.penalty import WeightPenalty
from losses.ratio import Ratio
from losses.reduction import reduce_values
from losses.regression import Charbonnier, Quantile
from losses.robust import AdaptiveRobust, GeneralRobust
from losses.step import Step
from losses.term import Term, term
from losses.triplet import Triplet, TripletMargin
from losses.virtual_adversarial import VirtualAdversarial
from losses.wasserstein import Wasserstein
from losses.weighted import WeightedMSE, WeightedRMSE
from losses.weights import UncertaintyWeight, Weight
from losses.yolo import YOLOv3

__all__ = [
    "AdaptiveRobust",
    "AdversarialRegularization",
    "BinaryFocal",
    "CategoricalFocal",
    "Charbonnier",
    "Consistency",
    "Contrastive",
    "Described",
    "Dice",
    "GaussianKL",
    "GaussianNLL",
    "GeneralRobust",
    "GradientPenalty",
    "IoU",
    "Layout",
    "NPairs",
    "NTXent",
    "Objective",
    "PDEResidual",
    "Parameter",
    "Quantile",
    "Ratio",
    "SparseFocal",
    "Step",
    "StudentTNLL",
    "SupCon",
    "Term",
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
    "derivative",
    "get",
    "reduce_values",
    "schedules",
    "term",
]
