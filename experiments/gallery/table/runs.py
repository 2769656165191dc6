"""The runs of an entry: their folders and commands, whether they are finished, what they noted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import experiments
from experiments.cli import command_line
from experiments.gallery.table.entry import Entry
from experiments.program import resolve
from experiments.sweep.processes import python, run_all

CONFIGS = Path(experiments.__file__).resolve().parent / "configs"
PICTURE = "picture.png"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of an entry.

    Attributes:
      name: of its folder.
      variant, seed: which it is.
      arguments: of `experiments.run`.
      workdir: its folder.
      picture: the file that it draws, or None.
    """

    name: str
    variant: str
    seed: int
    arguments: tuple[str, ...]
    workdir: Path
    picture: Path | None

    @property
    def noted(self) -> dict[str, Any] | None:
        """The checks and the seconds of DONE.json; None where the run has not noted both."""
        try:
            done = json.loads((self.workdir / "DONE.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(done, dict) or not {"checks", "seconds"} <= done.keys():
            return None
        return {name: done[name] for name in ("checks", "seconds")}

    @property
    def finished(self) -> bool:
        """Whether nothing of it is left to do."""
        drawn = self.picture is None or self.picture.exists()
        return drawn and self.noted is not None


def runs_of(name: str, entry: Entry, workdir: Path, configs: Path = CONFIGS) -> list[Run]:
    """The runs of an entry, seed by seed.

    Args:
      name: of the entry.
      workdir: of the gallery; the runs have folders in that of the entry.
      configs: the folder in which the configuration has the entry's name.
    """
    folder = workdir / name
    made = []
    for seed in entry.seeds:
        for variant, given in entry.variants.items():
            run_name = f"{variant},seed={seed}".replace(" ", "_")
            drawn = variant == entry.pictured and seed == entry.seeds[0]
            picture = folder / PICTURE if drawn else None
            arguments = [
                f"--config={configs / name}.py",
                *given,
                f"--config.seed={seed}",
                f"--workdir={folder / run_name}",
                *([f"--picture={picture}"] if picture else []),
            ]
            made.append(Run(run_name, variant, seed, tuple(arguments), folder / run_name, picture))
    return made


def check_runs(runs: list[Run]) -> None:
    """Raises what `experiments.run` would say of the arguments of some runs.

    Raises:
      ConfigurationError: something typed is wrong, or a folder holds a run of other settings.
    """
    for run in runs:
        resolve(command_line.parse(list(run.arguments)))


def carry_out(runs: list[Run], folder: Path, parallel: int, say) -> list[str]:
    """Does what is left of some runs of one entry; the names of those that failed.

    Args:
      folder: of the entry.
      parallel: how many at once.
      say: told when one begins and ends.
    Raises:
      Stopped: as of `run_all`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = [run for run in runs if not run.finished]
    command = {run.name: python("experiments.run", *run.arguments) for run in left}
    run_all(left, lambda run: command[run.name], folder, parallel, say)
    return [run.name for run in left if not run.finished]


def noted(runs: list[Run]) -> dict[str, dict[str, dict[str, Any]]]:
    """Variant -> seed, as JSON names it -> checks and seconds, of finished runs."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        if (values := run.noted) is not None:
            found.setdefault(run.variant, {})[str(run.seed)] = values
    return found
