"""A parameter in a user's loss: downhill and uphill, each to its solution."""

from experiments.check import Check
from experiments.gallery.table import Entry, Measured


def aims(measured: Measured) -> dict[str, Check]:
    """The farthest run of either direction."""
    return {
        f"{variant}, largest {name}": Check(max(measured.values(variant, check)), at_most=1e-3)
        for variant in ("descent", "ascent")
        for name, check in (
            ("distance of a", "a: distance from the solution"),
            ("distance of a coefficient", "coefficients: largest distance"),
        )
    }


ENTRY = Entry(
    "A parameter inside a loss of one's own, trained with the model: by descent, and by ascent "
    "(`losses.Parameter(maximize=True)`). Its solution is known by least squares.",
    variants={"descent": (), "ascent": ("--config.direction=ascent",)},
    aims=aims,
)
