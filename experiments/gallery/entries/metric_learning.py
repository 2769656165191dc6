"""Three losses of embeddings, and the network untrained."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured

RECALL = "recall@1 of unseen digits"


def aims(measured: Measured) -> dict[str, Check]:
    """The recall of each loss on digits that were not trained on."""
    return {
        f"recall@1, {variant}": Check(measured.mean(variant, RECALL), at_least=0.95)
        for variant in ("NT-Xent", "triplets", "SupCon")
    }


ENTRY = Entry(
    "Embeddings by NT-Xent, triplets and SupCon, tried on the digits 7 to 9, which are not trained "
    "on.",
    variants={
        "NT-Xent": (),
        "triplets": ("--config.variant=triplet",),
        "SupCon": ("--config.variant=sup_con",),
        "untrained": ("--config.variant=untrained",),
    },
    aims=aims,
)
