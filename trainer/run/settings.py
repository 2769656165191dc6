"""What a user may set by hand between two fits, and what of it was set since the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from losses.objective.weights import Weight
from trainer.loop.programs import Programs
from trainer.model.variables import by_path, read
from trainer.persistence.workdir import changed_fields

# of a run's own configuration, what says nothing of its course
OF_THE_PLACE = ("model", "strategy", "replicas", "jit_compile")
ABSENT = "as given"  # the weight of a term that was never set by hand


@dataclass(frozen=True)
class Settings:
    """What was set when it was looked at.

    Attributes:
      rates: group, or "phase/group" of a phase's own optimizer -> learning rate.
      trains: path -> whether a variable of the model trains.
      weights: term -> its weight in words, of those that `set_weight` was called for.
    """

    rates: Mapping[str, float]
    trains: Mapping[str, bool]
    weights: Mapping[str, str]

    @classmethod
    def of(cls, programs: Programs, weights: Mapping) -> Settings:
        """Those of a run now.

        Args:
          programs: of the run.
          weights: term -> weight, of those that were set by hand.
        """
        program = programs.program
        optimizers = {**program.optimizers.of_group, **programs.phase_states.optimizers}
        variables = by_path(program.model.variables).items()
        return cls(
            {group: float(read(each.learning_rate)) for group, each in optimizers.items()},
            {path: bool(variable.trainable) for path, variable in variables},
            {name: str(Weight(weight, name)) for name, weight in weights.items()},
        )

    def changes(self, before: Settings | None) -> dict[str, dict]:
        """What is set otherwise than before, as starts.jsonl notes it; {} where nothing is.

        Args:
          before: at the end of the last fit; None where there was none.

        Example:
          >>> before = Settings({"model": 0.1}, {"dense/kernel": True}, {})
          >>> Settings({"model": 0.01}, {"dense/kernel": True}, {"kl": "2"}).changes(before)
          {'learning_rate': {'model': [0.1, 0.01]}, 'weight': {'kl': ['as given', '2']}}
        """
        if before is None:
            return {}
        # the optimizer of a phase that is new was not set by hand
        rates = {name: rate for name, rate in self.rates.items() if name in before.rates}
        parts = {
            "learning_rate": (before.rates, rates),
            "weight": (before.weights, self.weights),
            "trainable": (before.trains, self.trains),
        }
        found = {
            what: {n: [then.get(n, ABSENT), v] for n, v in now.items() if then.get(n, ABSENT) != v}
            for what, (then, now) in parts.items()
        }
        return {what: changed for what, changed in found.items() if changed}


def told(changes: Mapping[str, Mapping]) -> str:
    """Changes in words.

    Example:
      >>> told({"learning_rate": {"model": [0.1, 0.01]}, "trainable": {"a": [False, True]}})
      'learning_rate of model 0.1 -> 0.01, trainable of a False -> True'
    """
    return ", ".join(
        f"{what} of {name} {_short(before)} -> {_short(now)}"
        for what, of_names in changes.items()
        for name, (before, now) in of_names.items()
    )


def rates_changed(starts: Sequence[Mapping], optimizer: Mapping) -> dict[str, float]:
    """The learning rates that were given otherwise than at the first start, by dotted names.

    Args:
      starts: the lines of starts.jsonl.
      optimizer: as it was given now, and as such a line notes it.

    Example:
      >>> rates_changed([{"optimizer": {"learning_rate": 0.1}}], {"learning_rate": 0.01})
      {'optimizer.learning_rate': 0.01}
    """
    first = next((note["optimizer"] for note in starts if "optimizer" in note), optimizer)
    changed = changed_fields({"optimizer": first}, {"optimizer": optimizer})
    rates = {name: value for name, value in changed.items() if name.endswith("learning_rate")}
    return {name: value for name, value in rates.items() if isinstance(value, float)}


def told_changed(changed: Mapping, rates: Mapping[str, float]) -> str:
    """What a continued run was given otherwise than at its first start, as a line; or "".

    Args:
      changed: of a configuration: dotted name -> value.
      rates: group -> learning rate, as the run goes on with it.

    Example:
      >>> told_changed({"optimizer.learning_rate": 0.01, "model": "net_1"}, {"model": 0.1})
      'changed since the first start: optimizer.learning_rate = 0.01 (not taken: the saved \
0.1 counts; set it between two fits)'
    """
    lines = []
    for name, value in changed.items():
        place = name.removeprefix("optimizer.").removesuffix("learning_rate").strip(".")
        rate = rates.get(place or next(iter(rates), ""))
        line = f"{name} = {_short(value)}"
        is_rate = name.endswith("learning_rate") and isinstance(value, float)
        if is_rate and rate not in (None, value):
            line += f" (not taken: the saved {_short(rate)} counts; set it between two fits)"
        if name not in OF_THE_PLACE:
            lines.append(line)
    return f"changed since the first start: {', '.join(lines)}" if lines else ""


def _short(value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
