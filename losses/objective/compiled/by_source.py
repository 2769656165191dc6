"""Losses given by source of data: which are whose, and what their terms are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from losses.errors import TermwiseError
from losses.objective.compiled.ratios import CompiledLoss, name_losses
from losses.objective.outputs import name_outputs
from losses.objective.step import Step


def keys_are_sources(by_key, step: Step) -> bool:
    """Whether the keys of `loss=` or `metrics=` are sources.

    They are where each is the name of a source, unless the main source's labels are a dict that
    has them too: then they are outputs.

    Args:
      by_key: what `Trainer(loss=)` or `Trainer(metrics=)` was given.
      step: of the main source.
    """
    names = step.known_sources
    if not isinstance(by_key, dict) or not by_key or not names or not set(by_key) <= set(names):
        return False
    return not (isinstance(step.y, dict) and set(by_key) <= set(step.y))


def name_losses_by_source(loss: Mapping[str, Any], step: Step) -> list[CompiledLoss]:
    """The compiled losses of each source: named by it, of several by `<source>/<loss or output>`.

    Raises:
      ValueError: a source with labels for none of several outputs.
    """
    compiled: list[CompiledLoss] = []
    for source, losses in loss.items():
        of_source, outputs = step.sources[source], None
        outputs = name_outputs(of_source.y_pred, step.output_names)
        by_name = isinstance(losses, dict)
        if not by_name and len(outputs) > 1:
            if source not in outputs:
                raise TermwiseError(
                    f"loss= has one loss for source {source!r}, and the model the outputs "
                    f"{', '.join(map(repr, outputs))}. Say which: loss={{{source!r}: "
                    "{output: loss}}, or call an output as the source."
                )
            losses = {source: losses}
        for each in name_losses(losses, of_source.y_pred, step.output_names):
            several = by_name or isinstance(loss[source], (list, tuple))
            last = each.name.split("/", 1)[-1] if not by_name else each.name
            name = f"{source}/{last}" if several else source
            compiled.append(replace(each, name=name, source=source))
    return compiled
