"""`class_weight=` of a fit, checked before anything is traced; `data.class_weights` applies it."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

from trainer.data import is_whole


def checked_class_weight(class_weight) -> dict[int, float]:
    """`class_weight` as a dict of finite numbers by class id.

    Raises:
      TypeError: it is no dict.
      ValueError: a class that is no whole number from 0 on, or a weight that is not finite.
    """
    if class_weight is None:
        return {}
    if not isinstance(class_weight, Mapping):
        raise TypeError(
            f"class_weight={class_weight!r}. Give a dict of class id -> weight, such as "
            "{0: 1.0, 1: 5.0}."
        )
    for index, weight in class_weight.items():
        number = isinstance(weight, numbers.Real) and math.isfinite(weight)
        if not is_whole(index) or index < 0 or not number:
            raise ValueError(
                f"class_weight= holds {index!r}: {weight!r}. Give class ids from 0 on and finite "
                "numbers, such as {0: 1.0, 1: 5.0}."
            )
    return {int(index): float(weight) for index, weight in class_weight.items()}
