"""The files of a run: config.json, starts.jsonl, metrics.jsonl, DONE.json."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path


class Workdir:
    """One run's folder. Whole files are written to a temporary name and renamed.

    Raises:
      NotADirectoryError, PermissionError: the path cannot be a folder that is written to.
    """

    def __init__(self, path):
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(
                f"workdir={str(path)!r} is a file. Give a folder; it is made when missing."
            )
        existing = next(p for p in [self.path, *self.path.parents] if p.exists())
        if not os.access(existing, os.W_OK):
            raise PermissionError(
                f"workdir={str(path)!r}: no permission to write in {existing}. Give another folder."
            )
        self._metrics = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def events(self) -> Path:
        return self.path / "tb"

    def start(self, config: dict | None, resumed_from: int | None) -> None:
        """Makes the folder, keeps the configuration of the first start, notes this one."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "DONE.json").unlink(missing_ok=True)  # the run goes on
        file = self.path / "config.json"
        if config is not None and not file.exists():
            write_json(file, config)
        import keras
        import tensorflow as tf

        note = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "argv": sys.argv,
            "overrides": [word for word in sys.argv[1:] if word.startswith("--config.")],
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
            },
            "git": _revision(),
            "resumed_from": resumed_from,
        }
        with open(self.path / "starts.jsonl", "a", encoding="utf-8") as starts:
            starts.write(json.dumps(note) + "\n")

    def config(self) -> dict | None:
        file = self.path / "config.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def cut_metrics(self, step: int) -> list[dict]:
        """Drops the rows after `step`, and a torn last line; returns those that stay."""
        file = self.path / "metrics.jsonl"
        kept: list[dict] = []
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    break
                if row["step"] <= step:
                    kept.append(row)
            temporary = file.with_suffix(".tmp")
            temporary.write_text("".join(_line(row) for row in kept), encoding="utf-8")
            os.replace(temporary, file)
        return kept

    def append_metrics(self, row: dict) -> None:
        if self._metrics is None:
            self._metrics = open(self.path / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self._metrics.write(_line(row))
        self._metrics.flush()

    def done(self, values: dict) -> None:
        """DONE.json: the final values and the duration."""
        write_json(self.path / "DONE.json", values)

    def seconds(self) -> float | None:
        """How long a finished run took; None for one that did not finish."""
        file = self.path / "DONE.json"
        return json.loads(file.read_text(encoding="utf-8"))["seconds"] if file.exists() else None

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None


def write_json(file: Path, values) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def _line(row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _revision() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
