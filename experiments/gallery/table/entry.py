"""An entry of the gallery: how an experiment is run, how often, and what it must reach."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from experiments.check import Check
from experiments.gallery.table.measured import Measured


@dataclasses.dataclass(frozen=True)
class Entry:
    """An experiment of the gallery, in the file of its name in `experiments/gallery/entries/`.

    Attributes:
      shows: what a reader learns from it, in one sentence.
      variants: name -> arguments of `experiments.run` that make it of the configuration, such as
        `("--config.variant=plain",)`. The first is the experiment; the others are what it is
        compared with.
      seeds: of each variant, as `--config.seed=`.
      aims: a function of what was measured that gives what must be reached: name -> `Check`. By
        default every check of the first variant that has bounds, on the mean over its seeds.
      pictured: the variant whose run with the first seed draws the picture; the first by default,
        "" for none.

    Raises:
      ValueError: no variant, no seed, a name or an argument that cannot be.

    Example:
      >>> Entry("A line.", variants={"line": (), "plain": ("--config.loss=plain",)}).pictured
      'line'
    """

    shows: str
    variants: Mapping[str, Sequence[str]] = dataclasses.field(
        default_factory=lambda: {"as it is": ()}
    )
    seeds: Sequence[int] = (0, 1, 2)
    aims: Callable[[Measured], Mapping[str, Check]] | None = None
    pictured: str | None = None

    def __post_init__(self):
        if not self.variants or not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"Entry(variants={dict(self.variants)}, seeds={tuple(self.seeds)}): give at least "
                "one variant, and seeds that differ."
            )
        for name, arguments in self.variants.items():
            if not re.fullmatch(r"[\w. =-]+", name) or isinstance(arguments, str):
                raise ValueError(
                    f"Entry(variants={{{name!r}: {arguments!r}}}): a variant has a name of letters "
                    "and digits, and a tuple of arguments such as ('--config.loss=plain',)."
                )
        if self.pictured is None:
            object.__setattr__(self, "pictured", next(iter(self.variants)))
        elif self.pictured and self.pictured not in self.variants:
            raise ValueError(
                f"Entry(pictured={self.pictured!r}): no such variant. There are: "
                f"{', '.join(self.variants)}."
            )

    def reached(self, measured: Measured) -> dict[str, Check]:
        """What must be reached, and was measured."""
        if self.aims is not None:
            return dict(self.aims(measured))
        return measured.checks(next(iter(self.variants)))


def find_entries(package: str = "experiments.gallery.entries") -> dict[str, Entry]:
    """Every entry by its name, in the order of names.

    Raises:
      TypeError: a module of the package defines no `ENTRY`.
    """
    room = importlib.import_module(package)
    names = sorted(module.name for module in pkgutil.iter_modules(room.__path__))
    return {name: _entry_of(importlib.import_module(f"{package}.{name}")) for name in names}


def _entry_of(module: ModuleType) -> Entry:
    entry = getattr(module, "ENTRY", None)
    if not isinstance(entry, Entry):
        raise TypeError(
            f"{module.__name__} defines no entry. Write ENTRY = Entry(...) there, of "
            "experiments.gallery."
        )
    return entry
