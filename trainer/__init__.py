"""The loop: a Trainer in which every term of the objective is explicit.

What is named here is imported when it is asked for: `python -m trainer.launch` needs none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losses.errors import TermwiseError
    from trainer.data.named.box import Box
    from trainer.data.named.sources import Sources
    from trainer.debugging.errors import Nonfinite
    from trainer.distributed.devices import prepare_gpus
    from trainer.distributed.hosts import PeerLost
    from trainer.distributed.strategies import resolve_strategy
    from trainer.fitting.phases import Phase, Reached
    from trainer.fitting.preemption import Preempted
    from trainer.ledger.history import History
    from trainer.second_order.dense import BFGS
    from trainer.second_order.gauss_newton import GaussNewton
    from trainer.second_order.lbfgs import LBFGS
    from trainer.trainer import Trainer

__all__ = [
    "BFGS",
    "LBFGS",
    "Box",
    "GaussNewton",
    "History",
    "Nonfinite",
    "PeerLost",
    "Phase",
    "Preempted",
    "Reached",
    "Sources",
    "TermwiseError",
    "Trainer",
    "prepare_gpus",
    "resolve_strategy",
]
_PLACES = {
    "BFGS": "trainer.second_order.dense",
    "Box": "trainer.data.named.box",
    "GaussNewton": "trainer.second_order.gauss_newton",
    "History": "trainer.ledger.history",
    "LBFGS": "trainer.second_order.lbfgs",
    "Nonfinite": "trainer.debugging.errors",
    "PeerLost": "trainer.distributed.hosts",
    "Phase": "trainer.fitting.phases",
    "Preempted": "trainer.fitting.preemption",
    "Reached": "trainer.fitting.phases",
    "Sources": "trainer.data.named.sources",
    "TermwiseError": "losses.errors",
    "Trainer": "trainer.trainer",
    "prepare_gpus": "trainer.distributed.devices",
    "resolve_strategy": "trainer.distributed.strategies",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
