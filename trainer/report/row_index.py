"""Where the rows of a metrics.jsonl stand, in bounded memory; read on as the file grows.

Whole rows are left out, never tags of a row: what is drawn adds up at every drawn step.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from array import array
from typing import Any

from trainer.report.folders import open_file

MOST = 16384  # rows of a split whose place is known; of more, every second, fourth, ... one
CHUNK = 4 << 20  # bytes read at once
LONGEST_LINE = 64 << 20
MOST_SETS = 32  # validation sets with names that are drawn
TAIL = 96  # bytes before the end of what was read, by which a rewritten file is told
_HEAD = re.compile(rb'\{"step": (\d+), "split": "(train|eval(?:/[\w.-]+)?)"')


class Places:
    """Where the rows of one split stand: every `stride`-th one, and the last.

    Attributes:
      steps, offsets: of the rows whose place is known.
      count: rows there are.
      last: (step, offset) of the last one.
    """

    def __init__(self) -> None:
        self.steps, self.offsets = array("q"), array("q")
        self.stride, self.count = 1, 0
        self.last: tuple[int, int] | None = None

    def add(self, step: int, offset: int) -> None:
        """Takes up one more row."""
        if not self.count % self.stride:
            if len(self.steps) >= MOST:
                self.steps, self.offsets = self.steps[::2], self.offsets[::2]
                self.stride *= 2
            if not self.count % self.stride:
                self.steps.append(step)
                self.offsets.append(offset)
        self.count += 1
        self.last = (step, offset)

    def within(self, first: float, last: float) -> list[tuple[int, int]]:
        """(step, offset) of the known rows from one step to another, the last row among them."""
        pairs = zip(self.steps, self.offsets, strict=True)
        places = [pair for pair in pairs if first <= pair[0] <= last]
        if self.last is not None and first <= self.last[0] <= last and self.last not in places[-1:]:
            places.append(self.last)
        return places


class RowIndex:
    """The rows of one metrics.jsonl.

    Args:
      path: the file; it may be missing, be appended to, cut back or replaced meanwhile.

    Attributes:
      places: split -> where its rows stand; train, eval, and `eval/<name>` as they come.
      missing: sentences that say what is left out.
      read, size: bytes that were read, and that the file had then.
      damaged: lines that hold no row.
      generation: how often the file was found rewritten.
    """

    def __init__(self, path: str):
        self.path = path
        self.generation = -1
        self._lock = threading.Lock()
        self._forget(None)

    def _forget(self, identity) -> None:
        self.places = {"train": Places(), "eval": Places()}
        self.missing: list[str] = []
        self.read = self.size = self.damaged = 0
        self._identity, self._tail = identity, b""
        self.generation += 1

    @property
    def complete(self) -> bool:
        """Whether the file was read to its end, as of the last `refresh`."""
        return self.read >= self.size

    @property
    def version(self) -> str:
        """Other rows, another version."""
        return f"{self.generation}.{self.read}"

    def refresh(self, seconds: float | None = None) -> None:
        """Reads on to the end of the last whole line.

        Args:
          seconds: about how long at most; a further call goes on there.
        """
        end = None if seconds is None else time.monotonic() + seconds
        with self._lock:
            descriptor = open_file(self.path)
            if descriptor is None:
                self._forget(None)
                return
            try:
                self._read_on(descriptor, end)
            finally:
                os.close(descriptor)

    def rows(self, split: str, first: float, last: float, points: int) -> list[dict[str, Any]]:
        """At most `points` whole rows of a split from one step to another, evenly chosen."""
        with self._lock:
            descriptor = open_file(self.path)
            if descriptor is None:
                return []
            try:
                places = self._chosen(descriptor, self.places[split], split, first, last, points)
                return [row for _, at in places if (row := self._row(descriptor, at)) is not None]
            finally:
                os.close(descriptor)

    def _read_on(self, descriptor: int, end: float | None) -> None:
        status = os.fstat(descriptor)
        identity = status.st_dev, status.st_ino
        before = self.read - len(self._tail)
        if (
            identity != self._identity
            or status.st_size < self.read
            or os.pread(descriptor, len(self._tail), before) != self._tail
        ):
            self._forget(identity)
        self.size = status.st_size
        while self.read < self.size:
            chunk = self._whole_lines(descriptor)
            if not chunk:
                self.size = self.read  # half a line is left
                break
            self._take(chunk)
            self.read += len(chunk)
            self._tail = (self._tail + chunk[-TAIL:])[-TAIL:]
            if end is not None and time.monotonic() > end:
                break

    def _whole_lines(self, descriptor: int) -> bytes:
        """The next lines up to the last line break within a chunk, longer where a line is."""
        length = CHUNK
        while True:
            chunk = os.pread(descriptor, min(length, self.size - self.read), self.read)
            cut = chunk.rfind(b"\n") + 1
            if cut or len(chunk) < length or length > LONGEST_LINE:
                return chunk[:cut]
            length *= 2

    def _take(self, chunk: bytes) -> None:
        start = 0
        while start < len(chunk):
            stop = chunk.find(b"\n", start)
            head = _head(chunk, start, stop)
            if head is None:
                self.damaged += stop > start
            else:
                self._add(head[0], head[1], self.read + start)
            start = stop + 1

    def _add(self, step: int, split: str, offset: int) -> None:
        """Takes up a row; of too many validation sets, those that come later are told instead."""
        if split in self.places or len(self.places) < MOST_SETS + 2:
            self.places.setdefault(split, Places()).add(step, offset)
        elif not self.missing:
            self.missing = [f"validation sets beyond the first {MOST_SETS}, as {split}"]

    def _chosen(self, descriptor, places: Places, split, first, last, points):
        known = places.within(first, last)
        if places.stride > 1 and len(known) < points:
            known = self._every_row(descriptor, places, split, first, last)
        if len(known) <= points:
            return known
        gaps = max(points - 1, 1)
        return [known[round(i * (len(known) - 1) / gaps)] for i in range(points)]

    def _every_row(self, descriptor, places: Places, split, first, last):
        """(step, offset) of each row from one step to another, read between the known places."""
        before = [at for step, at in places.within(-1, last) if step < first]
        start = before[-1] if before else 0
        rows: list[tuple[int, int]] = []
        while start < self.read:
            length = CHUNK
            chunk = os.pread(descriptor, length, start)
            while b"\n" not in chunk and length <= LONGEST_LINE:
                length *= 2
                chunk = os.pread(descriptor, length, start)
            chunk, at = chunk[: chunk.rfind(b"\n") + 1], 0
            if not chunk:
                break
            while at < len(chunk) and start + at < self.read:
                stop = chunk.find(b"\n", at)
                step, kind = _head(chunk, at, stop) or (-1, "")
                if step > last:
                    return rows
                if step >= first and kind == split:
                    rows.append((step, start + at))
                at = stop + 1
            start += len(chunk)
        return rows

    def _row(self, descriptor: int, offset: int) -> dict[str, Any] | None:
        """The row that stands at a place; None where the file was rewritten since."""
        count = sum(place.count for place in self.places.values())
        length = 2 * self.read // max(count, 1) + 512
        while True:
            text = os.pread(descriptor, length, offset)
            line, ended, _ = text.partition(b"\n")
            if ended:
                return _parsed(line)
            if len(text) < length or length > LONGEST_LINE:
                return None
            length *= 2


def _head(chunk: bytes, start: int, stop: int) -> tuple[int, str] | None:
    """(step, split) of the line from start to stop; None where it holds no row."""
    match = _HEAD.match(chunk, start, stop)
    if match is not None:
        return int(match[1]), match[2].decode()
    row = _parsed(chunk[start:stop])
    return None if row is None else (row["step"], row["split"])


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The row of one line; None where it is none. NaN, which is not JSON, is read as null."""
    try:
        row = json.loads(line, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
    split = row.get("split") if isinstance(row, dict) else None
    if not isinstance(split, str) or not (split in ("train", "eval") or split.startswith("eval/")):
        return None
    step = row.get("step")
    return row if type(step) is int and 0 <= step < 1 << 62 else None
