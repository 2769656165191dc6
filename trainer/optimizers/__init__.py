"""The update: whose optimizer owns a variable, when it is due, and its kernels.

Takes summed gradients by path; knows nothing of terms.
"""

from trainer.optimizers.arguments import describe_optimizer
from trainer.optimizers.groups import WHOLE, matches, partition
from trainer.optimizers.loss_scale import needs_scale
from trainer.optimizers.optimizers import Optimizers

__all__ = ["WHOLE", "Optimizers", "describe_optimizer", "matches", "needs_scale", "partition"]
