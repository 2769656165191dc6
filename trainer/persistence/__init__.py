"""What outlives a process: the workdir, its lock, checkpoints, and what a run restores.

A file is whole or not there. What is named here is imported when it is asked for: the command
line looks at a workdir before it imports TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.persistence.checkpoint import Checkpoints
    from trainer.persistence.disk import find_obstacle, read_file
    from trainer.persistence.errors import FileError
    from trainer.persistence.lock import WorkdirLock
    from trainer.persistence.metrics_file import MetricsFile
    from trainer.persistence.restore import WarmStart, initialize_from
    from trainer.persistence.retention import check_keep
    from trainer.persistence.workdir import Workdir, checked_config

__all__ = [
    "Checkpoints",
    "FileError",
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
_MODULES = {
    "Checkpoints": "checkpoint",
    "FileError": "errors",
    "MetricsFile": "metrics_file",
    "WarmStart": "restore",
    "Workdir": "workdir",
    "WorkdirLock": "lock",
    "check_keep": "retention",
    "checked_config": "workdir",
    "find_obstacle": "disk",
    "initialize_from": "restore",
    "read_file": "disk",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
