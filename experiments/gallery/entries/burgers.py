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
    seeds=(1, 2, 3),  # seed 0 chose the settings
)
