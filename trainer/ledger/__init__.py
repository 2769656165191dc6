"""The record of a run: rows, and who writes them: metrics.jsonl, TensorBoard, the console.

Numbers on the host; no tensor is made here.
"""

from trainer.ledger.console import Console
from trainer.ledger.describe import describe_run, describe_terms
from trainer.ledger.format import duration, equation, format_table, ledger_table, round_to_sum
from trainer.ledger.history import History
from trainer.ledger.recorder import Recorder
from trainer.ledger.rows import stamped, term_entries, window_row
from trainer.ledger.window import WindowReader, WindowSnapshot, WindowSums
from trainer.ledger.writer import Writer
from trainer.ledger.writers import Writers

__all__ = [
    "Console",
    "History",
    "Recorder",
    "WindowReader",
    "WindowSnapshot",
    "WindowSums",
    "Writer",
    "Writers",
    "describe_run",
    "describe_terms",
    "duration",
    "equation",
    "format_table",
    "ledger_table",
    "round_to_sum",
    "stamped",
    "term_entries",
    "window_row",
]
