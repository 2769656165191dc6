"""From a checkpoint to the variables of a run: all of them, or the weights of a warm start."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.model.variables import tensor_variable
from trainer.persistence.comparison import check_fit
from trainer.persistence.errors import FileMissingError
from trainer.persistence.manifest import Manifest, check_files, find_newest, read_manifest
from trainer.persistence.reader import SavedVariable, open_checkpoint

HELD = "held"  # the part that is restored by name
OLD_HELD = "others"  # as older versions called it
NEWER = ("window_more",)  # lists that checkpoints of before lack

PHASES = "phases"  # restored by name, as far as both have it; what is new stays as it is
LATER = ("host",)  # parts that older versions did not save; they stay as they are


class WarmStart(NamedTuple):
    """What `initialize_from` loaded.

    Attributes:
      path: of the checkpoint.
      loss_parameters: names of those that were loaded.
      left: names of those that the checkpoint does not have; they keep their initial values.
      balance: whether the balancer goes on from what the other run's has come to.
    """

    path: str
    loss_parameters: list[str]
    left: list[str]
    balance: bool = False


def named_variables(state: Mapping) -> dict[str, dict]:
    """The variables of a state by list and name, in order.

    Args:
      state: list name -> variables, or a dict of them by name; a list's are named by their paths,
        the second of two alike `<path>_1`. Empty lists are left out.
    """
    named: dict[str, dict] = {}
    for part, variables in state.items():
        if not isinstance(variables, Mapping):
            variables = _by_path(variables)
        if variables:
            named[part] = {name: tensor_variable(v) for name, v in variables.items()}
    return named


def describe_variables(named: dict[str, dict]) -> dict[str, list]:
    """What a manifest keeps: list name -> [[path, shape, dtype], ...]."""
    return {
        part: [[path, _shape(v), v.dtype.name] for path, v in variables.items()]
        for part, variables in named.items()
    }


def load(named: dict[str, dict], manifest: Manifest) -> None:
    """Assigns a checkpoint's values to the variables, by their places in the lists.

    What is held beside them has its place by name; a checkpoint may be one of another number of
    replicas. A list that older versions did not save, and that the checkpoint lacks, becomes zeros.

    Raises:
      ValueError: the checkpoint holds other variables; nothing was assigned.
      OSError: a file went away or cannot be read.
    """
    with open_checkpoint(manifest.path, manifest.variables) as reader:
        stored = reader.variables()
        newer = {part: named[part] for part in NEWER if part in named and part not in stored}
        unsaved = {*newer, *(part for part in LATER if part not in stored)}
        named = {part: variables for part, variables in named.items() if part not in unsaved}
        phases = _of_phases(named.pop(PHASES, {}), stored.pop(PHASES, []))
        named, saved = _counterparts(named, stored)
        check_fit(manifest.path, named, {p: [v for _, v in pairs] for p, pairs in saved.items()})
        for part, variables in named.items():
            places = [place for place, _ in saved[part]]
            reader.assign(part, zip(places, variables.values(), strict=True))
        reader.assign(PHASES, phases)
    for variable in (v for variables in newer.values() for v in variables.values()):
        variable.assign(tf.zeros_like(variable))


def _of_phases(ours: dict, theirs: list) -> list[tuple]:
    """(place in the checkpoint, variable) of the phases that both have, with their optimizers.

    Raises:
      ValueError: a phase of one name has other variables in the checkpoint.
    """
    places = {saved.path: (place, saved) for place, saved in enumerate(theirs)}
    kinds = {name: (tuple(v.shape), tensor_variable(v).dtype.name) for name, v in ours.items()}
    saved_kinds = {path: saved[1:3] for path, (_, saved) in places.items()}
    for phase in dict.fromkeys(name.partition("/")[0] for name in ours):
        mine, saved = (_of_phase(phase, each) for each in (kinds, saved_kinds))
        if saved and saved != mine:
            raise TermwiseError(
                f"Phase {phase!r} has another optimizer than the checkpoint holds, or trains other "
                "variables. Give it the one that the run began with, or another name."
            )
    return [(places[name][0], variable) for name, variable in ours.items() if name in places]


def _of_phase(phase: str, kinds: dict) -> dict:
    return {name: kind for name, kind in kinds.items() if name.partition("/")[0] == phase}


def _counterparts(named: dict[str, dict], saved: dict) -> tuple[dict, dict]:
    """The variables of a run, and what a checkpoint holds for each, part by part.

    Left out on both sides is what only another number of replicas has.

    Returns:
      list name -> path -> variable; list name -> [(place in the checkpoint, SavedVariable), ...].
    """
    ours, theirs = dict(named), {part: list(enumerate(saved[part])) for part in saved}
    part = HELD
    if OLD_HELD in theirs:
        part, ours[OLD_HELD] = OLD_HELD, ours.pop(HELD, {})
        theirs[OLD_HELD] = _renamed(ours[OLD_HELD], theirs[OLD_HELD])
    if ("random" in ours) != ("random" in theirs):  # several replicas, and one
        ours.pop("random", None)
        theirs.pop("random", None)
        ours[part] = {name: v for name, v in ours.get(part, {}).items() if not _is_seed(name)}
        theirs[part] = [pair for pair in theirs.get(part, []) if not _is_seed(pair[1].path)]
    if part in ours or part in theirs:
        ours[part], theirs[part] = _by_name(ours.get(part, {}), theirs.get(part, []))
    return {name: v for name, v in ours.items() if v}, theirs


def _by_name(ours: dict, theirs: list) -> tuple[dict, list]:
    """Both in one order, by name: first those that both have.

    A replica's part that the checkpoint lacks is as the first replica's; one that the run lacks
    is left out.
    """
    by_name = {variable.path: (place, variable) for place, variable in theirs}
    pairs = {name: by_name.get(name) or by_name.get(_of_first(name)) for name in ours}
    both = {name: pair for name, pair in pairs.items() if pair is not None}
    used = {place for place, _ in both.values()}
    rest = [(i, v) for i, v in theirs if i not in used and v.path == _of_first(v.path)]
    named = {**{name: ours[name] for name in both}, **ours}
    return named, [*((i, v._replace(path=name)) for name, (i, v) in both.items()), *rest]


def _renamed(ours: dict, theirs: list) -> list:
    """What an older version held, by the run's names: it stood in the order of its own names."""
    ordered = sorted(ours, key=lambda name: ours[name].name)
    if len(ordered) != len(theirs):  # of another number of replicas: the first one's
        ordered = [name for name in ordered if name == _of_first(name)]
        theirs = [(i, v) for i, v in theirs if v.path == _of_first(v.path)]
    if len(ordered) != len(theirs):
        return theirs
    return [(i, v._replace(path=n)) for n, (i, v) in zip(ordered, theirs, strict=True)]


def _of_first(name: str) -> str:
    """The name of the first replica's part of a variable."""
    return re.sub(r"/replica_\d+(_\d+)?$", "", name)


def _is_seed(name: str) -> bool:
    """Whether a variable is the state of draws without a seed."""
    return re.fullmatch(r"(step/)?seed_generator_state(_\d+)?", name) is not None


def _shape(variable) -> list[int]:
    """The shape of a variable's value."""
    known = variable.shape.is_fully_defined()
    return variable.shape.as_list() if known else tf.shape(variable).numpy().tolist()


def initialize_from(path, state: Mapping, *, loss_parameters: bool = True) -> WarmStart:
    """Warm start: gives a new run the model weights of another run.

    Args:
      path: the other run's workdir, its `checkpoints/`, or one checkpoint in there.
      state: as `Checkpoints` takes it; of it "model" is loaded by place, and "terms" by name, what
        layers of the model hold too. "balancer" is loaded where the other run's is of the same kind
        and for as many terms.
      loss_parameters: whether loss parameters and the balancer's state are loaded too, those that
        both runs have.
    Returns:
      WarmStart.
    Raises:
      FileNotFoundError: no checkpoint is there.
      ValueError: the model or a loss parameter is another one, or the checkpoint is damaged.

    Example:
      >>> import tempfile, keras
      >>> from trainer.persistence.checkpoint import Checkpoints
      >>> def model():
      ...     return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
      >>> first, folder = model(), Path(tempfile.mkdtemp())
      >>> _ = Checkpoints(folder, {"model": first.variables}, 3).save(5, wait=True)
      >>> second = model()
      >>> initialize_from(folder, {"model": second.variables}).loss_parameters
      []
      >>> bool((first.get_weights()[0] == second.get_weights()[0]).all())
      True
    """
    manifest = _find_manifest(Path(path))
    parts = ("model", "terms", "balancer", HELD)
    named = named_variables({part: state.get(part, []) for part in parts})
    model, terms = {"model": named.get("model", {})}, named.get("terms", {})
    with open_checkpoint(manifest.path, manifest.variables) as reader:
        saved = reader.variables()
        check_fit(manifest.path, model, {"model": saved.get("model", [])})
        places = _places_of(terms, saved, manifest) if loss_parameters else {}
        balancer = named.get("balancer", {})
        balance = loss_parameters and _begins_with(saved.get("balancer", []), balancer)
        reader.assign("model", enumerate(model["model"].values()))
        reader.assign("terms", ((place, terms[name]) for name, place in places.items()))
        reader.assign("balancer", enumerate(balancer.values()) if balance else ())
        reader.assign(HELD, _held_by_model(named.get(HELD, {}), saved.get(HELD, [])))
    left = [name for name in terms if name not in places]
    return WarmStart(manifest.path, list(places), left, balance)


def _begins_with(saved: list[SavedVariable], named: dict) -> bool:
    """Whether a list of a checkpoint begins with variables of these names, shapes and dtypes."""
    ours = [SavedVariable(name, tuple(v.shape), v.dtype.name) for name, v in named.items()]
    return bool(ours) and ours == saved[: len(ours)]


def _held_by_model(held: dict, saved: list[SavedVariable]) -> Iterator[tuple]:
    """(place, variable) of what layers of the model hold in both runs."""
    places = {(v.path, v.shape, v.dtype): place for place, v in enumerate(saved)}
    for name, variable in held.items():
        key = _of_first(name), tuple(variable.shape), variable.dtype.name
        if name.startswith("model/") and key in places:
            yield places[key], variable


def _places_of(terms: dict, saved: dict, manifest: Manifest) -> dict[str, int]:
    """Where the checkpoint holds the loss parameters that it and the run both have.

    Raises:
      ValueError: one of them has another shape, or the checkpoint does not name its own.
    """
    saved_terms = saved.get("terms", [])
    if terms and saved_terms and not manifest.variables:
        raise TermwiseError(
            f"{manifest.path} was written by an older version and does not name its loss "
            "parameters. Start from the model alone: loss_parameters=False."
        )
    saved_places = {variable.path: place for place, variable in enumerate(saved_terms)}
    places = {name: saved_places[name] for name in terms if name in saved_places}
    both = {"loss parameters": {name: terms[name] for name in places}}
    check_fit(manifest.path, both, {"loss parameters": [saved_terms[at] for at in places.values()]})
    return places


def _find_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint, or of the newest whole one of a folder."""
    name = re.fullmatch(r"(ckpt-\d+)(\.\w+.*)?", path.name)
    if name and not path.is_dir():
        return _checked_manifest(path, path.parent / f"{name[1]}.json")
    inside = path / "checkpoints"
    newest = find_newest(inside if inside.is_dir() else path, warnings.warn)
    if newest is None:
        raise FileMissingError(
            f"{path} holds no checkpoint. Give the workdir of a run that has saved one, or the "
            "path of a checkpoint."
        )
    return newest


def _checked_manifest(path: Path, file: Path) -> Manifest:
    """The manifest of the checkpoint that a user gave as `path`; its files are checked."""
    try:
        manifest = read_manifest(file)
        check_files(manifest)
    except FileNotFoundError:
        raise FileMissingError(
            f"{path}: no such checkpoint: {file.name} is not there. Give a workdir, or the "
            "path of a checkpoint without its suffix."
        ) from None
    except TermwiseError as error:
        raise TermwiseError(
            f"{path} is damaged: {error}. Give another checkpoint, or the workdir to take "
            "its newest whole one."
        ) from None
    return manifest


def _by_path(variables) -> dict:
    """Variables by path; of two with one path the second is `<path>_1`."""
    named: dict = {}
    for variable in variables:
        path = getattr(variable, "path", None) or variable.name.split(":")[0]
        free, count = path, 1
        while free in named:
            free, count = f"{path}_{count}", count + 1
        named[free] = variable
    return named
