"""The diffusivity of a rod from measured temperatures."""

from experiments.gallery.table import Entry

ENTRY = Entry(
    "An unknown coefficient of an equation as a loss parameter, four sources of points: a last "
    "phase of second order, beside three balancers under Adam.",
    variants={
        "second order": (),
        "annealing": ("--config.variant=annealing", "--config.steps=5000"),
        "relobralo": ("--config.variant=relobralo", "--config.steps=5000"),
        "ntk": ("--config.variant=ntk", "--config.steps=5000"),
        "plain": ("--config.variant=plain", "--config.steps=5000"),
    },
)
