"""Starts local workers and watches over them; must not import TensorFlow.

`python -m trainer.launch`; the exit codes of a run stand here.
"""
