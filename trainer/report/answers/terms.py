"""What a run's files say of its terms: where each is from, and which a hint is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from trainer.report.answers.colours import group_of
from trainer.report.hint import Hint

TERM = "terms/"


def origins_of(starts: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Term -> `from` and `equation`, as the last line of starts.jsonl that has it notes."""
    origins = {}
    for start in starts:
        for term in start.get("terms") or ():
            if isinstance(term, dict) and "name" in term:
                origins[term["name"]] = {key: term.get(key) for key in ("from", "equation")}
    return origins


def pointed(hints: Iterable[Hint], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hints as JSON, each with the `terms` that it is about: all of a prefix where it names one."""
    tags = dict.fromkeys(tag for row in rows for tag in row if tag.startswith(TERM))
    terms = [tag.removeprefix(TERM) for tag in tags]
    return [
        {
            **hint.to_dict(),
            "terms": [one for one in terms if one in hint.names or group_of(one) in hint.names],
        }
        for hint in hints
    ]
