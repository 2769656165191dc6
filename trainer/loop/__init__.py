"""The inner loop, compiled: many steps in one call, over any number of log windows.

A loop is a function of a step and of a feed of batches.
"""

from trainer.loop.eval_loop import EvalLoops
from trainer.loop.jit_choice import JitChoice, decide
from trainer.loop.programs import Programs
from trainer.loop.traced_step import TracedStep
from trainer.loop.train_loop import LoopResult, OnNonfinite, OpenLoop, TrainLoops
from trainer.loop.train_step import apply_gradients, compute_gradients, current_context
from trainer.loop.window import LogWindow

__all__ = [
    "EvalLoops",
    "JitChoice",
    "LogWindow",
    "LoopResult",
    "OnNonfinite",
    "OpenLoop",
    "Programs",
    "TracedStep",
    "TrainLoops",
    "apply_gradients",
    "compute_gradients",
    "current_context",
    "decide",
]
