"""The loop: a Trainer in which every term of the objective is explicit.

What is named here is imported when it is asked for: `python -m trainer.launch` needs none of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
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


def _check_losses() -> None:
    """Raises ImportError where a module of the user's hides the package that belongs with this."""
    module = sys.modules.get("losses")
    spec = importlib.util.find_spec("losses") if module is None else module.__spec__
    ours = Path(__file__).resolve().parent.parent / "losses" / "__init__.py"
    found = getattr(module, "__file__", None) if spec is None else spec.origin
    if found and ours.exists() and Path(found).resolve() != ours:
        raise ImportError(
            f"{found} hides the package losses of Termwise, which trainer needs. Rename it, or "
            "start from another folder.",
            name="losses",
            path=found,
        )


_check_losses()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_PLACES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
