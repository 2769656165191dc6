"""The variants of an experiment: what a gallery compares."""

from __future__ import annotations

from collections.abc import Iterable

from losses.errors import TermwiseError


def checked_variant(config, variants: Iterable[str]) -> str:
    """The variant that a configuration asks for.

    Args:
      config: ConfigDict with the field `variant`.
      variants: those of the experiment.
    Raises:
      ValueError: it is none of them.
    """
    variants = list(variants)
    if config.variant not in variants:
        accepted = ", ".join(map(repr, variants))
        raise TermwiseError(f"variant={config.variant!r}: accepted are {accepted}.")
    return config.variant
