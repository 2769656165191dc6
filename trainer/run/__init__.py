"""The parts of a run, where it stands, and what it evaluates to.

Made once by the Trainer; the host's side of training works with them.
"""

from trainer.run.assemble import RunSettings, UserFunctions, make_run
from trainer.run.evaluate import evaluate, follow, predict, prepare_reading
from trainer.run.run import Run

__all__ = [
    "Run",
    "RunSettings",
    "UserFunctions",
    "evaluate",
    "follow",
    "make_run",
    "predict",
    "prepare_reading",
]
