"""What outlives a process: the workdir, its lock, checkpoints, and what a run restores.

A file is whole or not there. What is named here is imported when it is asked for: the command
line looks at a workdir before it imports TensorFlow.
"""

from trainer.persistence.checkpoint import Checkpoints
from trainer.persistence.disk import find_obstacle, read_file
from trainer.persistence.lock import WorkdirLock
from trainer.persistence.metrics_file import MetricsFile
from trainer.persistence.restore import WarmStart, initialize_from
from trainer.persistence.retention import check_keep
from trainer.persistence.workdir import Workdir, checked_config

__all__ = [
    "Checkpoints",
    "MetricsFile",
    "WarmStart",
    "Workdir",
    "WorkdirLock",
    "check_keep",
    "checked_config",
    "find_obstacle",
    "initialize_from",
    "read_file",
]
