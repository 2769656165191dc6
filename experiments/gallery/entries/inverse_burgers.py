"""Both coefficients of Burgers' equation from values of its solution."""

from experiments.gallery.table import Entry

ENTRY = Entry(
    "Two unknown coefficients of Burgers' equation as loss parameters, four sources of points, "
    "and a last phase of second order.",
)
