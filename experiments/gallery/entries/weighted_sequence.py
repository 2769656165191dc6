"""Weights inside the loss of a sequence model, against none."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured

EXPORTED = "exported: largest difference"


def aims(measured: Measured) -> dict[str, Check]:
    """The weighted error below that of unweighted training; exported, the same predictions."""
    gap = measured.gap("weighted error", "unweighted", "labels")
    return {
        "weighted error, unweighted less weighted training, in standard errors": Check(
            gap.in_errors, at_least=3
        ),
        EXPORTED: Check(max(measured.values("labels", EXPORTED)), at_most=1e-5),
    }


ENTRY = Entry(
    "An LSTM with 100 outputs; weights per output and per example inside the loss, in the labels "
    "or as arguments; exported without them.",
    variants={
        "labels": (),
        "loss": ("--config.variant=loss",),
        "unweighted": ("--config.variant=unweighted",),
    },
    aims=aims,
)
