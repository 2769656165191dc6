"""A configuration: read from a file, changed by overrides, resolved to plain data.

The way of a setting: `load` runs the file's `get_config()`, `override` changes fields by their
dotted names, `plain` resolves the result to what JSON holds, `from_plain` gives the ConfigDict
that an experiment reads. The first start and a resumed one go the same way, so that an
experiment sees the same values in both: a tuple is a list by then.
"""

from __future__ import annotations

import math
import numbers
import os
import traceback
import types

from ml_collections import ConfigDict, FieldReference, FrozenConfigDict
from ml_collections.config_dict import RequiredValueError

from experiments.cli.literal import parse, type_name
from experiments.cli.shipped import locate, names
from trainer.launch.suggestion import nearest

# what ConfigDict raises of a field name, or of values nested too deeply
UNACCEPTED = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
# what a field of a name may be besides a value of its default's type
WORDS = {"checkpoint_every": ("auto",)}


class ConfigurationError(ValueError):
    """Something is wrong with what the user gave; the message is one or two lines."""


def load(path: str) -> ConfigDict:
    """The configuration that a file's `get_config()` returns.

    A configuration file is code and is run; give only files you trust.

    Args:
      path: str, a Python file that defines `get_config()`, or the name of one of the package's.
    Returns:
      ConfigDict, not locked: locking one reads its required fields.
    Raises:
      ConfigurationError: there is no such file, it does not run, it has no `get_config`, or
        that returns no ConfigDict.
    """
    path = locate(path)
    config = _run_file(path, _read_source(path))
    if isinstance(config, (dict, FrozenConfigDict)):
        try:
            config = ConfigDict(config)
        except UNACCEPTED as error:
            raise ConfigurationError(
                f"--config={path}: get_config() returned what no ConfigDict can hold: "
                f"{one_line(error)}"
            ) from error
    if not isinstance(config, ConfigDict):
        raise ConfigurationError(
            f"--config={path}: get_config() returned {type(config).__name__}. "
            "Return an ml_collections.ConfigDict."
        )
    return config


def _read_source(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise ConfigurationError(f"--config={path}: no such file.{_files_nearby(path)}") from None
    except IsADirectoryError:
        raise ConfigurationError(
            f"--config={path}: is a directory. Give one Python file.{_files_nearby(path)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ConfigurationError(f"--config={path}: {reason}. Give a Python file.") from None


def _run_file(path: str, source: str):
    """Runs a file, and gives what its `get_config()` returns.

    Raises:
      ConfigurationError: it does not run, or has no `get_config`.
    """
    module = types.ModuleType("termwise_configuration")
    module.__file__ = os.path.abspath(path)
    try:
        # not through the import system: nothing is cached, and no __pycache__ is written
        exec(compile(source, path, "exec"), vars(module))
        get_config = getattr(module, "get_config", None)
        if callable(get_config):
            return get_config()
    except SyntaxError as error:
        where = f" line {error.lineno}" if error.lineno else ""
        raise ConfigurationError(f"--config={path}:{where} {error.msg}.") from None
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"--config={path}: {_line_in(path, error)}{type(error).__name__}: {one_line(error)}"
        ) from error
    raise ConfigurationError(
        f"--config={path}: has no get_config(). "
        "Define one that returns an ml_collections.ConfigDict."
    )


def override(config: ConfigDict, name: str, text: str) -> None:
    """Sets the field `name` of `config` to what `text` says, in the type of its default.

    Args:
      config: ConfigDict, changed in place; fields that refer to this one follow it.
      name: str, dotted: "optimizer.learning_rate".
      text: str, as typed.
    Raises:
      ConfigurationError: no such field, or `text` is not of the field's type.
    """
    shown = f"--config.{printable(name)}"
    *sections, last = name.split(".")
    section = config
    for key in sections:
        section = _fields(section).get(key)
        if not isinstance(section, ConfigDict):
            raise ConfigurationError(f"{shown}: no such field.{_suggestion(config, name)}")
    if last not in _fields(section):
        raise ConfigurationError(f"{shown}: no such field.{_suggestion(config, name)}")
    field = _fields(section)[last]
    kind, default = type(field), field
    if isinstance(field, FieldReference):
        kind, default = field.get_type(), None if field.empty() else field.get()
    if isinstance(default, ConfigDict):
        inside = ", ".join(f"{name}.{key}" for key in default)
        raise ConfigurationError(f"{shown}: is a section. Set one of its fields: {inside}.")
    if text in WORDS.get(last, ()):
        with section.ignore_type():
            section[last] = text
        return
    try:
        section[last] = parse(text, kind, default)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{shown}={printable(text)}: {one_line(error)}") from None


def plain(config: ConfigDict) -> dict:
    """The resolved values as JSON holds them: dict, list, str, int, float, bool, None.

    Raises:
      ConfigurationError: a required field was not given, or a value that JSON has no form for.

    Example:
      >>> plain(ConfigDict({"units": (64, 32), "optimizer": {"learning_rate": 1e-3}}))
      {'optimizer': {'learning_rate': 0.001}, 'units': [64, 32]}
    """
    try:
        return _plain_section(config, "")
    except RecursionError:
        raise ConfigurationError(
            "The configuration holds itself, or is nested too deeply. Make its values plain."
        ) from None


def from_plain(values: dict) -> ConfigDict:
    """The locked ConfigDict of `plain` values, as an experiment is given it.

    Raises:
      ConfigurationError: a field name that a configuration cannot have.
    """
    try:
        return ConfigDict(values).lock()
    except UNACCEPTED as error:
        raise ConfigurationError(f"The configuration is refused: {one_line(error)}") from None


def field_names(config: ConfigDict, section: str = "") -> list[str]:
    """Every field's dotted name, sections left out.

    Example:
      >>> field_names(ConfigDict({"seed": 0, "optimizer": {"name": "adam"}}))
      ['optimizer.name', 'seed']
    """
    names = []
    for key, value in _fields(config).items():
        dotted = f"{section}{key}"
        names += field_names(value, dotted + ".") if isinstance(value, ConfigDict) else [dotted]
    return names


def one_line(error: BaseException | str) -> str:
    """A message, or an exception's, on one line of at most 300 characters."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # an exception of the user's that cannot say what it is
        message = "which has no message"
    message = message if message.isprintable() else repr(message)
    return message if len(message) <= 300 else message[:297] + "..."


def printable(text: str, longest: int = 100) -> str:
    """`text` itself where it stays on its line, otherwise its repr; cut at `longest` characters."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _fields(section) -> dict:
    if not isinstance(section, ConfigDict):
        return {}
    return dict(section.items(preserve_field_references=True))


def _suggestion(config: ConfigDict, name: str) -> str:
    """The nearest field: in the section that was meant, else anywhere; else all there are."""
    names = field_names(config)
    parent, _, last = name.rpartition(".")
    beside = {n.rpartition(".")[2]: n for n in names if n.rpartition(".")[0] == parent}
    match = nearest(last, beside, 0.5)
    if match:
        return f" Did you mean {beside[match]}?"
    of_this_name = [n for n in names if n.rpartition(".")[2] == last]
    elsewhere = of_this_name[0] if of_this_name else nearest(name, names)
    if elsewhere and elsewhere not in beside.values():
        return f" Did you mean {elsewhere}?"
    return _list(sorted(beside.values()) or names)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f" There are: {', '.join(names[:12])}{more}." if names else " It has no fields."


def _plain_section(section: ConfigDict, prefix: str) -> dict:
    values = {}
    for key in section:
        name = f"{prefix}{key}"
        if not isinstance(key, str):
            raise ConfigurationError(
                f"Configuration field {printable(name)}: its name is a {type(key).__name__}. "
                "Use a string."
            )
        try:
            value = section[key]
        except RequiredValueError:
            kind, shown = type_name(_fields(section)[key].get_type()), printable(name)
            raise ConfigurationError(
                f"--config.{shown}: required and not given. Add --config.{shown}=<{kind}>."
            ) from None
        except Exception as error:
            raise ConfigurationError(
                f"Configuration field {printable(name)} cannot be computed from the fields it "
                f"refers to: {type(error).__name__}: {one_line(error)}"
            ) from error
        values[key] = _plain_value(value, name)
    return values


def _plain_value(value, name: str):
    if isinstance(value, ConfigDict):
        return _plain_section(value, f"{name}.")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Real):
        return _plain_number(value, name)
    if isinstance(value, (list, tuple)):
        return [_plain_value(item, f"{name}[{k}]") for k, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain_value(item, f"{name}.{key}") for key, item in value.items()}
    raise ConfigurationError(
        f"Configuration field {printable(name)} is a {type(value).__name__}, which config.json "
        "cannot hold. Use numbers, strings, booleans, None, lists and sections; build objects in "
        "the experiment."
    )


def _plain_number(value: numbers.Real, name: str) -> int | float:
    if isinstance(value, numbers.Integral):
        return int(value)
    if not math.isfinite(value):
        raise ConfigurationError(
            f"Configuration field {printable(name)} is {float(value)}, which JSON has no form for. "
            "Use a finite number, or None."
        )
    return float(value)


def _files_nearby(path: str) -> str:
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    try:
        files = {f.removesuffix(".py"): f for f in os.listdir(folder or ".") if f.endswith(".py")}
    except OSError:
        return ""
    files.pop("__init__", None)
    name = os.path.basename(path).removesuffix(".py")
    match = nearest(name, files)
    if match:
        return f" Did you mean {os.path.join(folder, files[match])}?"
    paths = [os.path.join(folder, files[key]) for key in sorted(files)[:8]]
    paths = paths or ([] if folder else names())
    return f" There are: {', '.join(paths)}." if paths else ""


def _line_in(path: str, error: BaseException) -> str:
    """Where in the file the error came from: "line 12, "."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    return f"line {lines[-1]}, " if lines else ""
