"""What is computed from a run's files and rows before the page draws them.

`picture` (axes, sizes, charts), `terms`, `marks`, `colours`, `differences` of configurations.
"""

from trainer.report.answers.colours import Colours
from trainer.report.answers.differences import differences, flatten
from trainer.report.answers.marks import marks_of_rows, marks_of_starts
from trainer.report.answers.picture import picture_of
from trainer.report.answers.terms import origins_of, pointed

__all__ = [
    "Colours",
    "differences",
    "flatten",
    "marks_of_rows",
    "marks_of_starts",
    "origins_of",
    "picture_of",
    "pointed",
]
