"""What a hint is, and the rows of a run as the rules of hints read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FEWEST = 8  # rows from which anything is concluded
WHOLE_SIZE = ""  # no term has this name
MOST = 600  # rows of a split that are looked at; of more, evenly chosen ones


@dataclass(frozen=True)
class Hint:
    """Something that is probably not meant, with the numbers it rests on.

    Attributes:
      kind: the rule's name.
      what: what was seen, as a clause with its numbers.
      look: what to look at next, as a clause.
      names: the terms or loss parameters it is about.
      numbers: name -> value, those that stand in `what`, unrounded.
    """

    kind: str
    what: str
    look: str
    names: tuple[str, ...] = ()
    numbers: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.what}: {self.look}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON writes it."""
        return {**asdict(self), "names": list(self.names)}


class Rows:
    """The rows of one run.

    Args:
      rows: as metrics.jsonl holds them, in order, all splits.
      every: split -> how many rows of the file one row stands for, where it was thinned.

    Attributes:
      train: those of training that have a total.
      sets: split of validation -> its rows that have a total.
      skipped, steps: of training, behind the first row.
      constraints: those of the terms that are constraints; a multiplier of 0 says that one holds.
      keys: all that the train rows have.
      sizes: of each of the train rows, term -> absolute value; under `WHOLE_SIZE` their sum.
      terms: names of the terms, in the order of the objective.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], every: dict[str, float] | None = None):
        train = [row for row in rows if row.get("split") == "train"]
        skipped = sum(number(row.get("skipped_steps")) or 0 for row in train[1:])
        self.skipped = skipped * (every or {}).get("train", 1.0)
        self.steps = train[-1]["step"] - train[0]["step"] if len(train) > 2 else 0
        self.train = thinned([row for row in train if number(row.get("total")) is not None])
        sets: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row.get("split") != "train" and number(row.get("total")) is not None:
                sets.setdefault(str(row.get("split")), []).append(row)
        self.sets = {split: thinned(there) for split, there in sets.items()}
        keys = dict.fromkeys(key for row in (self.train[:1] + self.train[-1:]) for key in row)
        self.terms = [key.removeprefix("terms/") for key in keys if key.startswith("terms/")]
        self.keys = dict.fromkeys(key for row in self.train for key in row)
        self.constraints = set(self.tags("violation/"))
        self.sizes = [self._sizes(row) for row in self.train]

    def _sizes(self, row: dict[str, Any]) -> dict[str, float]:
        """Term -> the absolute value of what it adds; under `WHOLE_SIZE` their sum."""
        values = ((name, number(row.get(f"terms/{name}"))) for name in self.terms)
        sizes = {name: abs(value) for name, value in values if value is not None}
        return {**sizes, WHOLE_SIZE: sum(sizes.values())}

    def column(self, tag: str, rows: Sequence[dict[str, Any]] | None = None) -> list[float]:
        """The values of a tag that are there, of the train rows or of some others."""
        values = (number(row.get(tag)) for row in (self.train if rows is None else rows))
        return [value for value in values if value is not None]

    def tags(self, head: str) -> list[str]:
        """What follows `head` in the tags of the train rows."""
        return [key.removeprefix(head) for key in self.keys if key.startswith(head)]

    def groups(self) -> dict[str, list[str]]:
        """Name or `prefix/*` -> terms, those that share what stands before the first slash."""
        groups: dict[str, list[str]] = {}
        for name in self.terms:
            groups.setdefault(name.split("/")[0] if "/" in name else name, []).append(name)
        return {
            names[0] if len(names) == 1 else f"{head}/*": names for head, names in groups.items()
        }


def thinned(rows: list[dict[str, Any]], most: int = MOST) -> list[dict[str, Any]]:
    """At most `most` of some rows, evenly chosen, the first and the last among them."""
    if len(rows) <= most:
        return rows
    gaps = max(most - 1, 1)
    return [rows[round(i * (len(rows) - 1) / gaps)] for i in range(most)]


def number(value: Any) -> float | None:
    """The value where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if value - value == 0 else None


def shown(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def percent(share: float) -> str:
    """`37 %`, `0.0031 %`."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.3g} %"


def listed(names: Sequence[str], most: int = 3) -> str:
    """`'a', 'b' and 4 more`."""
    quoted = [f"'{name}'" for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(quoted)} and {len(names) - most} more"
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return sum(values) / len(values)
