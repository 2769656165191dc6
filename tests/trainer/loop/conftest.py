"""The program of a step that is small enough to compute by hand, see `tests/trainer/step`."""

from tests.trainer.step.conftest import _make_program, batch

__all__ = ["_make_program", "batch"]
