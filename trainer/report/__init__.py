"""What a finished or a running run looks like: hints, the page, the report, TensorBoard's tab.

Reads the files of runs and writes nothing among them; must not import TensorFlow.
"""

from trainer.report.answers.differences import differences, flatten
from trainer.report.errors import ReportError
from trainer.report.hint import Hint
from trainer.report.hints import find_hints
from trainer.report.runs import Runs

__all__ = ["Hint", "ReportError", "Runs", "differences", "find_hints", "flatten"]
