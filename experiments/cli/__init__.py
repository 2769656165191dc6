"""The machinery of `python -m experiments.run`: flags, configuration, saved runs, errors.

Nothing of it imports TensorFlow before `start_tensorflow`.
"""

from experiments.cli.configuration import ConfigurationError, printable
from experiments.cli.startup import start_tensorflow
from experiments.cli.user_errors import user_errors

__all__ = ["ConfigurationError", "printable", "start_tensorflow", "user_errors"]
