"""Starts local workers and watches over them; must not import TensorFlow.

`python -m trainer.launch`; the exit codes of a run stand here.
"""

from trainer.launch import exit_codes

__all__ = ["exit_codes"]
