"""The floating-point precision of a run: a field of its configuration, then a policy of Keras.

The flag `--precision` is an override of the field `precision`, which a configuration file need not
have. So it is kept in config.json, a resumed run uses it again, and another one is refused.
"""

from __future__ import annotations

import contextlib

from ml_collections import ConfigDict

from experiments.cli import configuration
from experiments.cli.configuration import ConfigurationError, printable

FIELD = "precision"
DEFAULT = "float32"
PRECISIONS = (DEFAULT, "float64", "mixed_float16", "mixed_bfloat16")


def override(config: ConfigDict, precision: str) -> None:
    """Sets the field, which is made where the file has none; float32 there needs no field.

    Raises:
      ConfigurationError: the file's field is no string.
    """
    if FIELD in config:
        configuration.override(config, FIELD, precision)
    elif precision != DEFAULT:
        with config.unlocked():
            config[FIELD] = precision


def of(values: dict) -> str:
    """The precision of a plain configuration; one that says nothing is of float32.

    Raises:
      ConfigurationError: the field holds something else.

    Example:
      >>> of({"precision": "mixed_bfloat16"}), of({"steps": 10})
      ('mixed_bfloat16', 'float32')
    """
    precision = values.get(FIELD, DEFAULT)
    if precision not in PRECISIONS:
        raise ConfigurationError(
            f"--config.{FIELD}={printable(str(precision))}: accepted are {', '.join(PRECISIONS)}."
        )
    return precision


def agreed(before: dict, after: dict) -> tuple[dict, dict]:
    """Both configurations, with the field in both where one of them has it.

    Example:
      >>> agreed({"precision": "mixed_float16"}, {})
      ({'precision': 'mixed_float16'}, {'precision': 'float32'})
      >>> agreed({"precision": "float32"}, {})
      ({'precision': 'float32'}, {'precision': 'float32'})
    """
    if FIELD in before or FIELD in after:
        before, after = {FIELD: DEFAULT, **before}, {FIELD: DEFAULT, **after}
    return before, after


@contextlib.contextmanager
def in_use(values: dict):
    """While open, layers are made with the dtype policy that a configuration names.

    A configuration that names none leaves Keras as it is: the program's own policy counts. The
    optimizer's loss scale, which mixed_float16 needs, is the Trainer's business.
    """
    if FIELD not in values:
        yield
        return
    import keras

    before, floats = keras.config.dtype_policy(), keras.config.floatx()
    if of(values) == "float64":  # arrays and parameters too
        keras.config.set_floatx("float64")
    keras.config.set_dtype_policy(of(values))
    try:
        yield
    finally:
        keras.config.set_floatx(floats)
        keras.config.set_dtype_policy(before)
