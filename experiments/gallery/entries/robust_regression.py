"""Robust losses against squared error on data of which 30 % are wrong."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured

ERROR = "largest relative error of a coefficient"


def aims(measured: Measured) -> dict[str, Check]:
    """All robust losses within 2 % of the truth, squared error not."""
    found = {
        f"{loss}: {ERROR}": Check(measured.mean(loss, ERROR), at_most=0.02)
        for loss in ("adaptive", "student_t", "charbonnier")
    }
    return found | {f"squared: {ERROR}": Check(measured.mean("squared", ERROR), at_least=0.02)}


ENTRY = Entry(
    "A line through labels of which 30 % are wrong: Barron's adaptive loss, Student's t and "
    "Charbonnier's find the coefficients, squared error does not.",
    variants={
        "adaptive": (),
        **{loss: (f"--config.loss={loss}",) for loss in ("student_t", "charbonnier", "squared")},
    },
    aims=aims,
)
