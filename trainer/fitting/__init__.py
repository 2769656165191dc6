"""The outer loop, on the host: what happens between two calls of the compiled loop.

Cadences, callbacks, signals, validation, prediction.
"""

from trainer.fitting.fit import FitRequest, run_fit
from trainer.fitting.plan import plan_fit
from trainer.fitting.preemption import Preempted

__all__ = ["FitRequest", "Preempted", "plan_fit", "run_fit"]
