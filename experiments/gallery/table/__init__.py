"""The table of the gallery: what an entry is, its runs, what they came to, the page."""

from experiments.gallery.table.entry import Entry, find_entries
from experiments.gallery.table.measured import Measured

__all__ = ["Entry", "Measured", "find_entries"]
