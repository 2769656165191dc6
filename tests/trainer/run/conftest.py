"""The program of a step that is small enough to compute by hand, see `tests/trainer/step`."""

from tests.trainer.step.conftest import _make_line, _make_program

__all__ = ["_make_line", "_make_program"]
