"""Burgers' equation: Adam, then a second-order method over all points."""

from experiments.gallery.table import Entry

ENTRY = Entry(
    "A physics-informed network of the viscous Burgers equation: Adam, then self-scaled Broyden "
    "over all points as a last phase, in float64.",
    variants={
        "bfgs": (),
        "adam alone": ("--config.method=adam", "--config.error_at_most=1.0"),
        "lbfgs alone": (
            "--config.method=lbfgs",
            "--config.adam_steps=0",
            "--config.error_at_most=1.0",
        ),
    },
    seeds=(4, 5, 6),  # seeds 0 and 2 chose the settings
)
