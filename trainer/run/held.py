"""What a run holds beside its model, terms and optimizers: variables that its step reads or writes.

A counter of a term, a running centre of a layer, the states of a stateful RNN. Each is named by
where it is held (`model/layers/0/states/0/1`): the names that Keras and TensorFlow give count what
else the process has made, or are all alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError
from trainer.model.variables import free_name, tensor_variable
from trainer.step.randomness import is_seed

MODEL = "model"  # where the search of a model begins
MOST = 20_000  # objects that the search looks at
LIBRARIES = {"builtins", "numpy", "tensorflow", "keras", "trainer"}  # not looked into
KERAS = (keras.Layer, keras.losses.Loss, keras.random.SeedGenerator)  # but for these
HIDDEN = "_parts"  # of a Trainer: what is named elsewhere

_OF_REPLICA = re.compile(r"(.*)/replica_(\d+)")


def held_variables(strategy, traced: Iterable, known: Iterable, places) -> dict[str, tf.Variable]:
    """The variables of a traced step that nothing else of a run names.

    Args:
      strategy: the run's. Each replica's part of a variable is one of its own: the first is `name`,
        the others `name/replica_1`, ...
      traced: `tf.Variable`s, in the order of their first use. One that cannot be reached from the
        places (a function has closed over it) is named by this order: `step/<its name>`.
      known: variables that are named elsewhere.
      places: (name, object) pairs, where the search begins.
    """
    results = strategy.experimental_local_results
    named_elsewhere = {id(part) for v in known for part in results(tensor_variable(v))}
    named_elsewhere |= {id(tensor_variable(v)) for v in known}
    loose = {id(v): v for v in traced if id(v) not in named_elsewhere}
    if not loose:
        return {}
    held: dict[str, tf.Variable] = {}
    for path, variable in _reachable(places):
        name = free_name(path, held)
        for replica, part in enumerate(results(tensor_variable(variable))):
            if id(part) in loose:
                held[of_replica(name, replica)] = loose.pop(id(part))
    return {**held, **_by_order(loose.values())}


def plain_variables(model: keras.Model) -> dict[str, tf.Variable]:
    """The `tf.Variable`s in a model's layers, which Keras does not list, as `held_variables`."""
    named = {id(tensor_variable(v)) for v in model.variables}
    held: dict[str, tf.Variable] = {}
    for path, variable in _reachable([(MODEL, model)]):
        if id(tensor_variable(variable)) not in named:
            held[free_name(path, held)] = tensor_variable(variable)
    return held


def check_moved(written: Iterable, places, replicas: int) -> None:
    """Raises ValueError where every replica would move a variable of which there is one.

    Seeds are no such: in whatever order the replicas draw, each draws numbers of its own.

    Args:
      written: `tf.Variable`s that the replicas write.
      places: (name, object) pairs, where these may be held.
      replicas: int, more than one.
    """
    written_ids = {id(v) for v in written}
    shared = [
        path
        for path, variable in _reachable(places)
        if id(tensor_variable(variable)) in written_ids and not is_seed(variable)
    ]
    if shared:
        raise TermwiseError(
            f"{', '.join(shared)}: made outside the strategy's scope, so there is one for "
            f"{replicas} replicas, and each would move it in every step. Make it in build_model() "
            "or build_terms(), or inside `with strategy.scope():`."
        )


def shared_anew(parts: np.ndarray, replicas: int, aggregation) -> np.ndarray:
    """The replicas' parts of a variable, for another number of replicas: the same sum or mean.

    Args:
      parts: [replicas before, ...].
      aggregation: of the variable: what it is when read for all replicas.
    Returns:
      [replicas, ...].

    Example:
      >>> shared_anew(np.array([3.0, 5.0]), 1, tf.VariableAggregation.SUM).tolist()
      [8.0]
      >>> shared_anew(np.array([3.0]), 2, tf.VariableAggregation.SUM).tolist()
      [3.0, 0.0]
    """
    if len(parts) == replicas:
        return parts
    if aggregation == tf.VariableAggregation.SUM:
        anew = np.zeros([replicas, *parts.shape[1:]], parts.dtype)
        anew[0] = parts.sum(0)
        return anew
    mean = aggregation == tf.VariableAggregation.MEAN
    whole = parts.mean(0).astype(parts.dtype) if mean else parts[0]
    return np.stack([whole] * replicas)


def of_replica(name: str, replica: int) -> str:
    """The name of a replica's part of a variable."""
    return f"{name}/replica_{replica}" if replica else name


def _by_order(variables: Iterable) -> dict[str, tf.Variable]:
    """Variables by the ends of their own names, without automatic numbers; counted in order."""
    named: dict[str, tf.Variable] = {}
    taken: dict[int, list[str]] = {}
    for variable in variables:
        full_name = variable.name.split(":")[0]
        matched = _OF_REPLICA.fullmatch(full_name)
        name, replica = (matched[1], int(matched[2])) if matched else (full_name, 0)
        names = taken.setdefault(replica, [])
        last = re.sub(r"_[0-9]+$", "", name.split("/")[-1])
        names.append(free_name(f"step/{last}", names))
        named[of_replica(names[-1], replica)] = variable
    return named


def _reachable(places) -> Iterator[tuple]:
    """(path, variable) of what can be reached from places, the nearest first."""
    seen: dict[int, object] = {}  # which keeps them: no id is given to another
    level = list(places)
    while level and len(seen) < MOST:
        below: list[tuple] = []
        for path, thing in level:
            if id(thing) in seen:
                continue
            seen[id(thing)] = thing
            if isinstance(thing, (keras.Variable, tf.Variable)):
                yield path, thing
            else:
                below += [(f"{path}/{name}", part) for name, part in _parts_of(thing)]
        level = below


def _parts_of(thing) -> list[tuple]:
    """(name, part) of what a container, a layer, or an object that users write holds."""
    if isinstance(thing, dict):
        return [(str(key), value) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return list(enumerate(thing))
    library = (type(thing).__module__ or "").split(".")[0] in LIBRARIES
    if library and not isinstance(thing, KERAS):
        return []
    layers = [("layers", thing.layers)] if isinstance(thing, keras.Model) else []
    attributes = getattr(thing, "__dict__", {}).items()
    parts = [(name, value) for name, value in attributes if name != HIDDEN]
    # what a user sees comes before what Keras keeps of it
    return [*layers, *sorted(parts, key=lambda part: str(part[0]).startswith("_"))]
