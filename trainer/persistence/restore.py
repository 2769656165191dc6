"""From a checkpoint to the variables of a run: all of them, or the weights of a warm start."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.model.variables import tensor_variable
from trainer.persistence.comparison import check_fit
from trainer.persistence.errors import FileMissingError
from trainer.persistence.manifest import Manifest, check_files, find_newest, read_manifest
from trainer.persistence.reader import open_checkpoint

NEWER = ("window_more",)  # lists that checkpoints of before lack


class WarmStart(NamedTuple):
    """What `initialize_from` loaded.

    Attributes:
      path: of the checkpoint.
      loss_parameters: names of those that were loaded.
      left: names of those that the checkpoint does not have; they keep their initial values.
    """

    path: str
    loss_parameters: list[str]
    left: list[str]


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
        part: [[path, v.shape.as_list(), v.dtype.name] for path, v in variables.items()]
        for part, variables in named.items()
    }


def load(named: dict[str, dict], manifest: Manifest) -> None:
    """Assigns a checkpoint's values to the variables, by their places in the lists.

    A list that older versions did not save, and that the checkpoint lacks, becomes zeros.

    Raises:
      ValueError: the checkpoint holds other variables; nothing was assigned.
      OSError: a file went away or cannot be read.
    """
    with open_checkpoint(manifest.path, manifest.variables) as reader:
        saved = reader.variables()
        newer = {part: named[part] for part in NEWER if part in named and not saved.get(part)}
        known = {part: variables for part, variables in named.items() if part not in newer}
        check_fit(manifest.path, known, saved)
        for part, variables in known.items():
            reader.assign(part, enumerate(variables.values()))
    for variable in (v for variables in newer.values() for v in variables.values()):
        variable.assign(tf.zeros_like(variable))


def initialize_from(path, state: Mapping, *, loss_parameters: bool = True) -> WarmStart:
    """Warm start: gives a new run the model weights of another run.

    Args:
      path: the other run's workdir, its `checkpoints/`, or one checkpoint in there.
      state: as `Checkpoints` takes it; of it "model" is loaded by place, and "terms" by name.
      loss_parameters: whether loss parameters are loaded too, those that both runs have.
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
    named = named_variables({part: state.get(part, []) for part in ("model", "terms")})
    model, terms = {"model": named.get("model", {})}, named.get("terms", {})
    with open_checkpoint(manifest.path, manifest.variables) as reader:
        saved = reader.variables()
        check_fit(manifest.path, model, {"model": saved.get("model", [])})
        places = _places_of(terms, saved, manifest) if loss_parameters else {}
        reader.assign("model", enumerate(model["model"].values()))
        reader.assign("terms", ((place, terms[name]) for name, place in places.items()))
    return WarmStart(manifest.path, list(places), [name for name in terms if name not in places])


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
