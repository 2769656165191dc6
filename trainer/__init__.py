"""The loop: a Trainer in which every term of the objective is explicit.

What is named here is imported when it is asked for: `python -m trainer.launch` needs none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.hosts import PeerLost
    from trainer.ledger import History, Nonfinite
    from trainer.preemption import Preempted
    from trainer.strategies import resolve_strategy
    from trainer.trainer import Trainer

__all__ = ["History", "Nonfinite", "PeerLost", "Preempted", "Trainer", "resolve_strategy"]
_PLACES = {
    "History": "trainer.ledger",
    "Nonfinite": "trainer.ledger",
    "PeerLost": "trainer.hosts",
    "Preempted": "trainer.preemption",
    "Trainer": "trainer.trainer",
    "resolve_strategy": "trainer.strategies",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
