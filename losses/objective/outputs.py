"""The model's outputs by name, and what the user gives for each: losses, labels, weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from losses.errors import TermwiseError
from losses.naming import suggestion


def flatten(structure, path=()) -> dict[str, Any]:
    """A nest of dicts, lists and tuples as `{"a/b": leaf}`; a leaf alone is `{"": leaf}`."""
    items: Iterable
    if isinstance(structure, dict):
        items = structure.items()
    elif isinstance(structure, (list, tuple)):
        items = enumerate(structure)
    else:
        return {"/".join(map(str, path)): structure}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(flatten(value, (*path, key)))
    return flat


def name_outputs(y_pred, output_names=None) -> dict[str, Any]:
    """The model's outputs by name.

    Args:
      y_pred: the model's outputs; a tensor or a nest.
      output_names: the names of a functional model's outputs, in order.
    Returns:
      dict: dict keys (joined by "/") name outputs; else `output_names`; else `output_0`, ...
      One output without a name is called "". Outputs of one name (a layer called twice) are
      `<name>/0`, `<name>/1`, as if they were a list of this name.
    """
    flat = flatten(y_pred)
    if isinstance(y_pred, dict):
        return flat
    names = _each_once(output_names or [])
    if len(names) == len(flat):
        return dict(zip(names, flat.values(), strict=True))
    if list(flat) == [""]:
        return flat
    return {f"output_{path.replace('/', '_')}": value for path, value in flat.items()}


def _each_once(names: Iterable[str]) -> list[str]:
    """The names, those that occur several times with their place behind: `a/0`, `a/1`."""
    names = list(names)
    counts = Counter(names)
    seen: Counter = Counter()
    distinct = []
    for name in names:
        distinct.append(f"{name}/{seen[name]}" if counts[name] > 1 else name)
        seen[name] += 1
    return distinct


def by_output(values, outputs: dict, what: str) -> dict[str, Any]:
    """What the user gave for the outputs, by output name.

    Args:
      values: a leaf (for every output), a list in the outputs' order, or a (nested, partial)
        dict by output name.
      outputs: the outputs by name.
      what: "loss", "loss_weights", "metrics"; for the errors.
    Returns:
      dict: output name -> what was given for it; lists stay lists.
    Raises:
      ValueError: a name that no output has, or a list of another length.
    """
    names = list(outputs)
    if isinstance(values, dict):
        return _by_name(values, names, what)
    if not isinstance(values, (list, tuple)) or len(names) <= 1:
        return dict.fromkeys(names, values)
    leaves = _leaves(values, len(names))
    if len(leaves) != len(names):
        raise TermwiseError(
            f"{what}= is a list of {len(values)}, but the model has {len(names)} outputs: "
            f"{', '.join(map(repr, names))}. Give one for each (None for none), or a dict."
        )
    return dict(zip(names, leaves, strict=True))


def _leaves(values, count: int) -> list:
    """The values of a list: as they are where they are so many, else those of its nest."""
    return list(values) if len(values) == count else list(flatten(list(values)).values())


def _by_name(values: dict, names: list[str], what: str) -> dict[str, Any]:
    """The values of a nested dict by output name."""
    named = {}
    for name, value in _nested_items(values, names):
        if names == [""] and len(values) > 1:
            raise TermwiseError(
                f"{what}= names outputs {', '.join(map(repr, values))}, but the model has "
                "one output. Give one of them."
            )
        if names != [""] and name not in names:
            several = [n for n in names if n.startswith(f"{name}/")]
            listed = f" Give a list: {{{name!r}: [...]}}." if several else suggestion(name, names)
            raise TermwiseError(
                f"{what}= names output {name!r}; the model's outputs are "
                f"{', '.join(map(repr, names))}.{listed}"
            )
        named[name] = value
    return named


def _nested_items(values: dict, names: list[str], path=()):
    """(output name, value) of each entry; a nest goes as deep as an output's name does."""
    for key, value in values.items():
        name = "/".join((*path, str(key)))
        deeper = name not in names and any(n.startswith(name + "/") for n in names)
        if isinstance(value, (list, tuple)) and deeper:
            value = dict(enumerate(value))
        if isinstance(value, dict) and name not in names and (deeper or not path):
            yield from _nested_items(value, names, (*path, str(key)))
        else:
            yield name, value


def match_labels(y, outputs: dict, used: list[str]) -> dict[str, Any]:
    """The label of each output that has a loss.

    Args:
      y: the labels: a tensor, a list or tuple in the outputs' order, a dict by output name,
        or None.
      outputs: the outputs by name.
      used: the names of the outputs that have a loss.
    Returns:
      dict: output name -> its label; a `MissingLabel` where the data has none.
    Raises:
      ValueError: labels whose structure fits no reading.
    """
    if y is None:
        return {name: MissingLabel(name, "the data yields no labels") for name in used}
    if len(outputs) == 1:
        return _label_of_one_output(y, next(iter(outputs)), used)
    if isinstance(y, dict):
        labels = {**flatten(y), **y}
        present = f"the labels have only {', '.join(map(repr, y)) or 'nothing'}"
        return {name: labels.get(name, MissingLabel(name, present)) for name in used}
    if isinstance(y, (list, tuple)):
        size, in_order = f"a {type(y).__name__} of {len(y)}", _in_order(y, outputs, used, True)
    else:
        size, in_order = "one tensor", {used[0]: y} if len(used) == 1 else None
    if in_order is None:
        raise TermwiseError(
            f"The labels are {size}, but {len(used)} outputs have a loss: "
            f"{', '.join(map(repr, used))}. Yield a dict by output name, or one label for each, "
            "in this order."
        )
    return in_order


def _label_of_one_output(y, output: str, used: list[str]) -> dict[str, Any]:
    """The label of a model's only output, by itself, in a dict by name or in a list of one."""
    if isinstance(y, dict) and used and used[0] in y:
        return {used[0]: y[used[0]]}
    if isinstance(y, (list, tuple)) and len(y) == 1:
        y = y[0]
    if isinstance(y, (list, tuple)):
        raise TermwiseError(
            f"The labels are a {type(y).__name__} of {len(y)}, but the model has one output"
            f"{f', {output!r}' if output else ''}. Yield one label, or a dict."
        )
    return dict.fromkeys(used, y)


def _in_order(values, outputs: dict, used: list[str], nested=False) -> dict[str, Any] | None:
    """The values of the used outputs, of a list with one for each output, or for each used one."""
    for names in (list(outputs), used):
        leaves = _leaves(values, len(names)) if nested else list(values)
        if len(leaves) == len(names):
            return {n: v for n, v in zip(names, leaves, strict=True) if n in used}
    return None


def match_weights(sample_weight, outputs: dict, used: list[str]) -> dict[str, Any]:
    """The sample weights of each output that has a loss; one tensor serves all of them."""
    if isinstance(sample_weight, dict):
        _check_weight_names(sample_weight, list(outputs))
        weights = {**flatten(sample_weight), **sample_weight}
        return {name: _of_whole(weights, name) for name in used}
    if not isinstance(sample_weight, (list, tuple)):
        return dict.fromkeys(used, sample_weight)
    in_order = _in_order(sample_weight, outputs, used)
    if in_order is None:
        raise TermwiseError(
            f"The sample weights are a {type(sample_weight).__name__} of {len(sample_weight)}, "
            f"but the outputs with a loss are {', '.join(map(repr, used))}. Yield one tensor for "
            "all of them, one for each, or a dict by output name."
        )
    return in_order


def _of_whole(weights: dict, name: str):
    """The weights of an output; else those of the nest of outputs that it is a part of."""
    parts = name.split("/")
    for count in range(len(parts), 0, -1):
        value = weights.get("/".join(parts[:count]))
        if value is not None and not isinstance(value, (dict, list, tuple)):
            return value
    return None


def _check_weight_names(names, outputs: list[str]) -> None:
    for name in names:
        part_of_one = any(output == name or output.startswith(f"{name}/") for output in outputs)
        if outputs != [""] and not part_of_one:
            raise TermwiseError(
                f"The sample weights name output {name!r}; the model's outputs are "
                f"{', '.join(map(repr, outputs))}.{suggestion(name, outputs)}"
            )


class MissingLabel:
    """Passed as `y_true` where there is no label; any use of it says what is missing.

    Args:
      output: the output's name.
      reason: what the data has instead.
    """

    def __init__(self, output: str, reason: str):
        self._message = (
            f"The loss of output {output!r} reads its label, but {reason}. "
            "Yield (x, y) with that label, set the output's loss to None, or use a loss that "
            "ignores y_true."
        )

    def _raise(self, *arguments, **keywords):
        raise TermwiseError(self._message)

    __tf_tensor__ = __array__ = __getitem__ = __len__ = __iter__ = __float__ = _raise
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _raise
    __truediv__ = __rtruediv__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _raise
    __lt__ = __le__ = __gt__ = __ge__ = __abs__ = _raise

    def __getattr__(self, name):
        raise AttributeError(self._message)  # so that hasattr() says no
