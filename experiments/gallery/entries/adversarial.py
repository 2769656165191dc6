"""Adversarial regularization by one gradient step and by seven, against plain training."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured


def aims(measured: Measured) -> dict[str, Check]:
    """By how much either is above plain training, attacked and not."""
    found = {}
    for variant in ("pgd", "fgsm"):
        attacked = measured.gap("accuracy under PGD-20", variant, "plain").mean
        clean = measured.gap("accuracy", variant, "plain").mean
        found[f"{variant}, accuracy under PGD-20 above plain"] = Check(attacked, at_least=0.25)
        found[f"{variant}, accuracy above plain"] = Check(clean, at_least=-0.02)
    return found


ENTRY = Entry(
    "FGSM and PGD adversarial regularization as terms, measured by an attack of 20 steps that may "
    "move every pixel by 0.1 of 1.",
    variants={
        "pgd": (),
        "fgsm": ("--config.variant=fgsm",),
        "plain": ("--config.variant=plain",),
    },
    aims=aims,
)
