"""Balancers: rules that derive the terms' weights, or the direction itself, from the terms."""

from losses.balancing.aligned_mtl import AlignedMTL
from losses.balancing.balancer import (
    Balancer,
    GramianBalancer,
    JacobianBalancer,
    JacobianWeightsBalancer,
    TracesBalancer,
    ValuesBalancer,
)
from losses.balancing.cagrad import CAGrad
from losses.balancing.dwa import DWA
from losses.balancing.fairgrad import FairGrad
from losses.balancing.famo import FAMO
from losses.balancing.fixed import Fixed
from losses.balancing.geometric_mean import GeometricMean
from losses.balancing.graddrop import GradDrop
from losses.balancing.gradnorm import GradNorm
from losses.balancing.gradvac import GradVac
from losses.balancing.imtl_g import IMTLG
from losses.balancing.learning_rate_annealing import LearningRateAnnealing
from losses.balancing.mgda import MGDA
from losses.balancing.nash_mtl import NashMTL
from losses.balancing.ntk import NTK
from losses.balancing.pcgrad import PCGrad
from losses.balancing.random_weights import RandomWeights
from losses.balancing.relobralo import ReLoBRaLo
from losses.balancing.softadapt import SoftAdapt
from losses.balancing.stch import STCH
from losses.balancing.uncertainty import IMTLL, TrainedBalancer, Uncertainty
from losses.balancing.upgrad import DualProjection, UPGrad

__all__ = [
    "DWA",
    "FAMO",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "NTK",
    "STCH",
    "AlignedMTL",
    "Balancer",
    "CAGrad",
    "DualProjection",
    "FairGrad",
    "Fixed",
    "GeometricMean",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GramianBalancer",
    "JacobianBalancer",
    "JacobianWeightsBalancer",
    "LearningRateAnnealing",
    "NashMTL",
    "PCGrad",
    "RandomWeights",
    "ReLoBRaLo",
    "SoftAdapt",
    "TracesBalancer",
    "TrainedBalancer",
    "UPGrad",
    "Uncertainty",
    "ValuesBalancer",
]
