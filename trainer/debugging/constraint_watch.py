"""What the host looks for in the rows of constraints: one that no weights seem to keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from losses.terms.constraint import Constraint

ROWS = 20  # in a row that break the bound, while the multiplier grows
FALLS = 0.9  # what the later half of them breaks it by, against the earlier: then it is on its way


class ConstraintWatch:
    """Warns once of each constraint that seems to be infeasible.

    Args:
      constraints: of the run.
      rows: so far: those of a resumed run count.
      say: called with a warning.
    """

    def __init__(
        self,
        constraints: Iterable[Constraint],
        rows: Iterable[Mapping],
        say: Callable[[str], object],
    ):
        self._bounds = {constraint.name: constraint.bound for constraint in constraints}
        self._say = say
        # violation and size of the multiplier in the last rows, of those not yet told of
        self._rows: dict[str, deque[tuple[float, float]]] = {
            name: deque(maxlen=ROWS) for name in self._bounds
        }
        for row in rows:
            for name in self._rows:
                self._take(name, row)

    def look(self, row: Mapping) -> None:
        """Takes a row as it is written; warns where it is the last of so many."""
        for name in list(self._rows):
            self._take(name, row)
            if self._stays(self._rows[name]):
                self._warn(name, self._rows.pop(name))

    def _take(self, name: str, row: Mapping) -> None:
        violation, multiplier = (row.get(f"{tag}/{name}") for tag in ("violation", "multiplier"))
        if violation is None or multiplier is None:  # of an evaluation, or of absent examples
            return
        rows, size = self._rows[name], abs(multiplier)
        if violation <= 0 or (rows and size < rows[-1][1]):
            rows.clear()
        rows.append((violation, size))

    @staticmethod
    def _stays(rows) -> bool:
        """Whether all rows are there, the multiplier has grown, and the violation not fallen."""
        if len(rows) < ROWS or rows[-1][1] <= rows[0][1]:
            return False
        violations = [violation for violation, _ in rows]
        return sum(violations[ROWS // 2 :]) > FALLS * sum(violations[: ROWS // 2])

    def _warn(self, name: str, rows) -> None:
        violation, multiplier = rows[-1]
        self._say(
            f"constraint {name!r} ({self._bounds[name]}) was violated in each of the last {ROWS} "
            f"rows, by {violation:.4g} in the last and no less than before, while its multiplier "
            f"grew from {rows[0][1]:.4g} to {multiplier:.4g}: it may be infeasible. Loosen the "
            "bound, or raise rate= (penalty=) if the multiplier is only slow."
        )
