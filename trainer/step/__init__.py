"""One step on one replica: forward pass, sums of the terms, gradients of the total.

Pure functions of tensors; knows no loop.
"""

from trainer.step.forward import Forward, stateless_forward
from trainer.step.gradients import Backward
from trainer.step.metrics import Metrics
from trainer.step.outputs import ReplicaResult, StepRecord
from trainer.step.program import Discovery, Placement, StepProgram
from trainer.step.randomness import Randomness
from trainer.step.reduction import sum_results
from trainer.step.replica import count_replica, evaluate_replica, predict_replica, train_replica
from trainer.step.trainable import find_trainables
from trainer.step.weighting import Weighting

__all__ = [
    "Backward",
    "Discovery",
    "Forward",
    "Metrics",
    "Placement",
    "Randomness",
    "ReplicaResult",
    "StepProgram",
    "StepRecord",
    "Weighting",
    "count_replica",
    "evaluate_replica",
    "find_trainables",
    "predict_replica",
    "stateless_forward",
    "sum_results",
    "train_replica",
]
