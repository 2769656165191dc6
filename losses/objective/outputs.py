"""Matching what the user gives by output (losses, labels, weights) with the model's outputs."""

from __future__ import annotations

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
      One output without a name is called "".
    """
    flat = flatten(y_pred)
    if isinstance(y_pred, dict):
        return flat
    names = list(output_names or [])
    if len(names) == len(flat):
        return dict(zip(names, flat.values(), strict=True))
    if list(flat) == [""]:
        return flat
    return {f"output_{path.replace('/', '_')}": value for path, value in flat.items()}


def by_output(given, outputs: dict, what: str) -> dict[str, Any]:
    """`given` by output name.

    Args:
      given: a leaf (for every output), a list in the outputs' order, or a (nested, partial)
        dict by output name.
      outputs: the outputs by name.
      what: "loss", "loss_weights", "metrics"; for the errors.
    Returns:
      dict: output name -> what was given for it; lists stay lists.
    Raises:
      ValueError: a name that no output has, or a list of another length.
    """
    names = list(outputs)
    if isinstance(given, dict):
        found = {}
        for name, value in _nested_items(given, names):
            if name not in outputs and names == [""]:
                if len(given) > 1:
                    raise TermwiseError(
                        f"{what}= names outputs {', '.join(map(repr, given))}, but the model has "
                        "one output. Give one of them."
                    )
            elif name not in outputs:
                raise TermwiseError(
                    f"{what}= names output {name!r}; the model's outputs are "
                    f"{', '.join(map(repr, names))}.{suggestion(name, names)}"
                )
            found[name] = value
        return found
    if isinstance(given, (list, tuple)) and len(names) > 1:
        leaves = list(flatten(list(given)).values()) if len(given) != len(names) else list(given)
        if len(leaves) != len(names):
            raise TermwiseError(
                f"{what}= is a list of {len(given)}, but the model has {len(names)} outputs: "
                f"{', '.join(map(repr, names))}. Give one for each (None for none), or a dict."
            )
        return dict(zip(names, leaves, strict=True))
    return dict.fromkeys(names, given)


def _nested_items(given, names, path=()):
    for key, value in given.items():
        name = "/".join((*path, str(key)))
        deeper = any(n.startswith(name + "/") for n in names)
        if isinstance(value, dict) and name not in names and (deeper or not path):
            yield from _nested_items(value, names, (*path, str(key)))
        elif isinstance(value, (list, tuple)) and name not in names and deeper:
            yield from _nested_items(dict(enumerate(value)), names, (*path, str(key)))
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
        (name,) = outputs
        if isinstance(y, dict) and used and used[0] in y:
            return {used[0]: y[used[0]]}
        if isinstance(y, (list, tuple)) and len(y) == 1:
            y = y[0]
        if isinstance(y, (list, tuple)):
            raise TermwiseError(
                f"The labels are a {type(y).__name__} of {len(y)}, but the model has one output"
                f"{f', {name!r}' if name else ''}. Yield one label, or a dict."
            )
        return {n: y for n in used}
    if isinstance(y, dict):
        flat = {**flatten(y), **y}
        present = f"the labels have only {', '.join(map(repr, y)) or 'nothing'}"
        return {n: flat.get(n, MissingLabel(n, present)) for n in used}
    if isinstance(y, (list, tuple)):
        for names in (list(outputs), used):
            leaves = list(y) if len(y) == len(names) else list(flatten(list(y)).values())
            if len(leaves) == len(names):
                return {n: v for n, v in zip(names, leaves, strict=True) if n in used}
    elif len(used) == 1:
        return {used[0]: y}
    size = f"a {type(y).__name__} of {len(y)}" if isinstance(y, (list, tuple)) else "one tensor"
    raise TermwiseError(
        f"The labels are {size}, but {len(used)} outputs have a loss: "
        f"{', '.join(map(repr, used))}. Yield a dict by output name, or one label for each, "
        "in this order."
    )


def match_weights(sample_weight, outputs: dict, used: list[str]) -> dict[str, Any]:
    """The sample weights of each output that has a loss; one tensor serves all of them."""
    if sample_weight is None:
        return dict.fromkeys(used)
    if isinstance(sample_weight, dict):
        flat = {**flatten(sample_weight), **sample_weight}
        unknown = [n for n in sample_weight if n not in outputs and outputs.keys() != {""}]
        unknown = [n for n in unknown if not any(o.startswith(f"{n}/") for o in outputs)]
        if unknown:
            raise TermwiseError(
                f"The sample weights name output {unknown[0]!r}; the model's outputs are "
                f"{', '.join(map(repr, outputs))}.{suggestion(unknown[0], outputs)}"
            )
        return {n: flat.get(n) for n in used}
    if isinstance(sample_weight, (list, tuple)):
        for names in (list(outputs), used):
            if len(sample_weight) == len(names):
                pairs = zip(names, sample_weight, strict=True)
                return {n: v for n, v in pairs if n in used}
        raise TermwiseError(
            f"The sample weights are a {type(sample_weight).__name__} of {len(sample_weight)}, "
            f"but the outputs with a loss are {', '.join(map(repr, used))}. Yield one tensor for "
            "all of them, one for each, or a dict by output name."
        )
    return dict.fromkeys(used, sample_weight)


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
