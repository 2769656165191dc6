"""Experiments that reach known results, each a short module; `python -m experiments.gallery`.

The modules are the experiments. `entries/` says how each is run, how often, and what it must
reach; `table/` runs them and writes docs/gallery.md of what was measured.
"""

from experiments.gallery.table import Entry

__all__ = ["Entry"]
