"""Three ways to make a rare class count, against none."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured

RECALL = "recall of the rare digit"
WAYS = ("focal", "class_weight", "sample_weight")


def aims(measured: Measured) -> dict[str, Check]:
    """The recall of the rare digit above that of plain cross-entropy, by standard errors."""
    return {
        f"{RECALL}, {way} less plain, in standard errors": Check(
            measured.gap(RECALL, way, "plain").in_errors, at_least=3
        )
        for way in WAYS
    }


ENTRY = Entry(
    "A class with 2 % of the training data: focal loss, class weights and sample weights against "
    "plain cross-entropy.",
    variants={
        "focal": (),
        **{name: (f"--config.variant={name}",) for name in (*WAYS[1:], "plain")},
    },
    aims=aims,
)
