"""Starts local workers and watches over them; must not import TensorFlow.

`python -m trainer.launch`; the exit codes of a run stand here.
"""

from trainer.launch.exit_codes import (
    DONE,
    INTERRUPTED,
    MISSED,
    PEER_LOST,
    PREEMPTED,
    TERMINATED,
    WRONG,
)
from trainer.launch.launcher import main
from trainer.launch.suggestion import nearest

__all__ = [
    "DONE",
    "INTERRUPTED",
    "MISSED",
    "PEER_LOST",
    "PREEMPTED",
    "TERMINATED",
    "WRONG",
    "main",
    "nearest",
]
