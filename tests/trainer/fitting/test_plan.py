"""Cadences that the loop cannot count are refused by name, before anything is trained."""

from types import SimpleNamespace

import numpy as np
import pytest

from trainer.fitting.plan import plan_fit

SOURCE = SimpleNamespace(what="data", steps_per_epoch=4)
NONE = dict.fromkeys(
    ("steps", "epochs", "log_every", "validate_every", "checkpoint_every", "steps_per_loop")
)


def plan(**cadences):
    return plan_fit(SOURCE, **{**NONE, **cadences})


@pytest.mark.parametrize(
    "cadences, words",
    [
        (
            dict(steps=20, log_every=2**31),
            "log_every=2147483648: .* below 2\\*\\*31; that of steps=",
        ),
        (dict(steps=20, steps_per_loop=2**31), "steps_per_loop=2147483648: .* below 2\\*\\*31"),
        (dict(steps=20, checkpoint_every=2**63), "checkpoint_every=9223372036854775808: .*63"),
        (dict(steps=2**63), "steps=9223372036854775808"),
        (dict(epochs=2**62), "epochs=4611686018427387904 are 18446744073709551616 steps"),
        (dict(steps=20, log_every=0), "log_every=0: give a whole number of at least 1"),
    ],
)
def test_a_number_too_large_to_count_is_refused_by_name(cadences, words):
    with pytest.raises(ValueError, match=words):
        plan(**cadences)


def test_what_can_be_counted_is_kept():
    found = plan(epochs=np.int32(3), log_every=2**31 - 1)
    assert (found.steps, found.log_every, found.interval) == (12, 2**31 - 1, 4)
