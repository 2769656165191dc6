"""A student with a teacher, and alone."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured


def aims(measured: Measured) -> dict[str, Check]:
    """By how much the teacher helps."""
    gap = measured.gap("test accuracy", "distilled", "alone")
    return {
        "accuracy above the student alone, in standard errors": Check(gap.in_errors, at_least=2)
    }


ENTRY = Entry(
    "A frozen teacher inside a term: a student of few units learns from what a large network says "
    "of images without labels.",
    variants={"distilled": (), "alone": ("--config.variant=alone",)},
    aims=aims,
)
