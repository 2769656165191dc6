"""What a checkpoint holds, part by part."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class TrainState:
    """The variables on which a run's future depends: what a checkpoint holds, part by part.

    model, optimizers: theirs. terms: name -> loss parameters, and what terms and a subclass own.
    random: the state of draws without a seed. balancer: of the balancer and the diagnostics.
    metrics: each replica's parts, [replicas, ...] each. window, window_more: of the log window;
    checkpoints of before have the first alone. step, data_start: the global step, and that at
    which the data began. held: what the traced step reads or writes beside them, by where it is
    held. host: one string, the packed `HostState`. phases: what the methods of second-order phases
    remember, by the phase's name.
    """

    model: list
    optimizers: list
    terms: dict
    random: list
    balancer: list
    metrics: list
    window: list
    window_more: list
    step: list
    data_start: list
    held: dict
    host: list
    phases: dict

    def parts(self) -> dict:
        """part -> its variables, a list or a dict by name."""
        return {part.name: getattr(self, part.name) for part in fields(self)}

    def variables(self, *parts: str) -> list:
        """The variables of some parts, of all by default."""
        chosen = [self.parts()[part] for part in parts] if parts else self.parts().values()
        return [v for part in chosen for v in (part.values() if isinstance(part, dict) else part)]
