"""Why a run failed, and where its time went: bad values, replay, profiles, TensorFlow's errors.

Looks at a run from outside; training does not depend on it.
"""

from trainer.debugging.bad_values import check_arrays, step_failure
from trainer.debugging.blame import BadStep, blamed
from trainer.debugging.errors import Nonfinite
from trainer.debugging.nonfinite import RESTORES, check_mode, describe_nonfinite
from trainer.debugging.profile import Profile
from trainer.debugging.replay import replay

__all__ = [
    "RESTORES",
    "BadStep",
    "Nonfinite",
    "Profile",
    "blamed",
    "check_arrays",
    "check_mode",
    "describe_nonfinite",
    "replay",
    "step_failure",
]
