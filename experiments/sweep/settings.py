"""What varies in a sweep: axes as they are typed, and the settings that they span."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.cli.configuration import ConfigurationError, printable

MOST = 10_000  # settings; more are a mistake
SEED = "seed"  # a field of this name is averaged over


@dataclass(frozen=True)
class Axis:
    """A field that varies.

    Attributes:
      field: its dotted name.
      values: as they are typed.
    """

    field: str
    values: tuple[str, ...]

    @property
    def is_seed(self) -> bool:
        """Whether the results are averaged over it."""
        return self.field.split(".")[-1] == SEED


@dataclass(frozen=True)
class Setting:
    """One run of a sweep.

    Attributes:
      name: of its folder.
      values: field -> value, of the axes in their order.
      group: the values without seeds: runs of one group are averaged.
    """

    name: str
    values: dict[str, str]
    group: tuple[tuple[str, str], ...]

    @property
    def overrides(self) -> list[str]:
        """The arguments of `experiments.run` that make it."""
        return [f"--config.{field}={value}" for field, value in self.values.items()]


def parse_axis(text: str) -> Axis:
    """The axis that `--sweep=` names.

    Args:
      text: `config.FIELD=a,b,c`, or `config.FIELD=0..4` for whole numbers, both ends included.
        A comma within brackets or quotes does not separate.
    Raises:
      ConfigurationError: it is written otherwise, or names a value twice.

    Example:
      >>> parse_axis("config.seed=0..2")
      Axis(field='seed', values=('0', '1', '2'))
      >>> parse_axis("config.model.units=(8,16),(32,)").values
      ('(8,16)', '(32,)')
    """
    match = re.fullmatch(r"(?:-*config\.)([^=]+)=(.*)", text, re.S)
    if match is None:
        raise ConfigurationError(
            f"--sweep={printable(text)}: write --sweep=config.FIELD=VALUE,VALUE or "
            "--sweep=config.FIELD=FIRST..LAST."
        )
    field, values = match[1], _split(match[2])
    if len(values) == 1 and (span := re.fullmatch(r"(-?\d{1,9})\.\.(-?\d{1,9})", values[0])):
        first, last = int(span[1]), int(span[2])
        if last < first or last - first >= MOST:
            raise ConfigurationError(
                f"--sweep={printable(text)}: accepted are at most {MOST} numbers, the lower first."
            )
        values = [str(number) for number in range(first, last + 1)]
    if not all(values):
        raise ConfigurationError(f"--sweep={printable(text)}: a value is empty.")
    if len(set(values)) < len(values):
        raise ConfigurationError(f"--sweep={printable(text)}: a value is there twice.")
    return Axis(field, tuple(values))


def settings(axes: Sequence[Axis]) -> list[Setting]:
    """All settings that some axes span, the last axis varying fastest.

    Raises:
      ConfigurationError: two axes vary one field, or there are too many settings.
    """
    fields = [axis.field for axis in axes]
    for field in fields:
        if fields.count(field) > 1:
            raise ConfigurationError(f"--sweep=config.{printable(field)}: is given twice.")
    spanned = list(itertools.islice(itertools.product(*(a.values for a in axes)), MOST + 1))
    if len(spanned) > MOST:
        raise ConfigurationError(f"--sweep: more than {MOST} settings. Vary fewer fields.")
    short = [field.split(".")[-1] for field in fields]
    words = [
        last if short.count(last) == 1 else field for field, last in zip(fields, short, strict=True)
    ]
    made = []
    for values in spanned:
        pairs = list(zip(fields, values, strict=True))
        group = [pair for pair, axis in zip(pairs, axes, strict=True) if not axis.is_seed]
        name = ",".join(f"{word}={value}" for word, value in zip(words, values, strict=True))
        made.append(Setting(_as_folder(name), dict(pairs), tuple(group)))
    names = [setting.name for setting in made]
    for setting in made:
        if names.count(setting.name) > 1:
            raise ConfigurationError(
                f"--sweep: two settings would have the folder {printable(setting.name)!r}. "
                "Give values that differ in more than / and spaces."
            )
    return made


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no bracket and in no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        if letter == "," and not quote and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _as_folder(name: str) -> str:
    """A name that any file system takes, as TensorBoard's paths do."""
    return re.sub(r"[\s/\\:*?\"'<>|\[\]]+", "_", name)[:200]
