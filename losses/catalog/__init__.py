"""Losses as Keras has them: one value per example from y_true and y_pred, a module for each theme.

Each names itself for `losses.get` and for Keras. `BatchLoss` is a base for losses of one's own.
"""

from losses.catalog.bases import BatchLoss
from losses.catalog.contrastive import Contrastive, InfoNCE, NTXent, SupCon
from losses.catalog.focal import BinaryFocal, CategoricalFocal, SparseFocal
from losses.catalog.iou import IoU
from losses.catalog.likelihood import GaussianNLL, SparseCrossentropy, StudentTNLL
from losses.catalog.regression import Charbonnier, Quantile, noncrossing
from losses.catalog.robust import AdaptiveRobust, GeneralRobust
from losses.catalog.segmentation import Dice, Tversky
from losses.catalog.triplet import NPairs, Triplet, TripletMargin
from losses.catalog.wasserstein import Wasserstein
from losses.catalog.weighted import WeightedMSE, WeightedRMSE
from losses.catalog.yolo import YOLOv3
from losses.catalog.yolo_boxes import assign_boxes, detected_boxes

__all__ = [
    "AdaptiveRobust",
    "BatchLoss",
    "BinaryFocal",
    "CategoricalFocal",
    "Charbonnier",
    "Contrastive",
    "Dice",
    "GaussianNLL",
    "GeneralRobust",
    "InfoNCE",
    "IoU",
    "NPairs",
    "NTXent",
    "Quantile",
    "SparseCrossentropy",
    "SparseFocal",
    "StudentTNLL",
    "SupCon",
    "Triplet",
    "TripletMargin",
    "Tversky",
    "Wasserstein",
    "WeightedMSE",
    "WeightedRMSE",
    "YOLOv3",
    "assign_boxes",
    "detected_boxes",
    "noncrossing",
]
