"""Many settings of one experiment: `python -m experiments.sweep`; does not import TensorFlow."""

from experiments.sweep.settings import Axis, Setting, parse_axis, settings

__all__ = ["Axis", "Setting", "parse_axis", "settings"]
