"""What weight decay leaves alone: the loss parameters, beside what its user has excluded."""

from __future__ import annotations

import re


def exclude_from_decay(optimizer, variables: list) -> None:
    """Excludes variables from weight decay beside those that the user has excluded.

    Keras's method replaces what an earlier call of it said: a set of variables, and a pattern of
    names. Both are put back, whatever the attributes are called that hold them.
    """
    before = dict(vars(optimizer))
    optimizer.exclude_from_weight_decay(var_list=variables)
    for name, value in before.items():
        now = vars(optimizer)[name]
        if isinstance(value, re.Pattern) and now is None:
            setattr(optimizer, name, value)
        elif isinstance(value, set) and now is not value:
            now.update(value)
