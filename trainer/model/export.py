"""The inference model alone: no labels, no loss parameters, nothing of the loop."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from losses.errors import TermwiseError
from losses.objective.model_terms import overrides

SAVED, ARCHIVE = "saved_model.pb", "model.keras"
# what lies in the folder of an export, and in a model.keras
EXPORTED = (SAVED, ARCHIVE, "variables", "assets", "assets.extra", "fingerprint.pb")
ARCHIVED = ("metadata.json", "config.json")
_PATTERN = re.compile(r"[\[\\]")  # TensorFlow loads nothing below a path with one of these


class ExportRefusedError(TermwiseError, FileExistsError):
    """Something else than an earlier export is in the way of an export."""


def inference_model(model: keras.Model, outputs=None) -> keras.Model:
    """The part of a model that its outputs need.

    Inputs that no output depends on (labels and weights which only a term or an `add_loss`
    reads) are left out.

    Args:
      model: any Keras model; one that is not functional is returned as it is.
      outputs: None, or names of layers whose outputs are exported instead of the model's own
        (for a model whose own output is a loss).
    Raises:
      ValueError: a name that no layer has.
    """
    try:
        inputs, structure = model.inputs, model.output
    except AttributeError:
        inputs = structure = None
    if outputs is not None:
        _check_functional(model, inputs)
        structure = _outputs_of_layers(model, outputs)
    elif not inputs:
        return model
    needed: set[int] = set()
    for tensor in keras.tree.flatten(structure):
        needed |= {id(source) for source in keras.utils.get_source_inputs(tensor)}
    used = [tensor for tensor in inputs if id(tensor) in needed]
    if outputs is None and len(used) == len(inputs):
        return model
    part: Any = used[0] if len(used) == 1 else used
    if isinstance(model.input, dict):
        part = {name: tensor for name, tensor in model.input.items() if id(tensor) in needed}
    return keras.Model(part, structure, name=model.name)


def _check_functional(model, inputs) -> None:
    if not inputs:
        raise TermwiseError(
            "export(outputs=...) picks layers of a functional model; this model is a "
            f"{type(model).__name__}. Export a model made of the layers you want."
        )


def _outputs_of_layers(model, names):
    """The output of the layer of one name; of several by name."""
    listed = [names] if isinstance(names, str) else list(names)
    known = [layer.name for layer in model.layers]
    for name in listed:
        if name not in known:
            raise TermwiseError(
                f"export(outputs={name!r}): no such layer. Layers: {', '.join(known)}."
            )
    outputs = {name: model.get_layer(name).output for name in listed}
    return outputs[names] if isinstance(names, str) else outputs


def export_model(model: keras.Model, path, outputs=None) -> Path:
    """Writes the inference model: a SavedModel folder that holds `model.keras` as well.

    A path that ends in ".keras" gets that file alone. The export is written beside the target and
    renamed, so that the target is whole or what it was. An earlier export, or an empty folder, is
    replaced; anything else that stands there is left as it is.

    Raises:
      FileExistsError: something else than an earlier export has this path.
    """
    if not overrides(model, "call"):
        raise TermwiseError(
            f"export() writes what the model's call() computes, and the {type(model).__name__} "
            "has none. Give it one, or export its parts: trainer.model.part.export(path)."
        )
    path = Path(path)
    target = Path(os.path.realpath(path))  # of a link, what it leads to
    exported = inference_model(model, outputs)
    single = path.suffix == ".keras"
    check = _check_archive if single else _check_folder
    check(path, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.parent) as beside:
        written = Path(beside, "model.keras" if single else "export")
        if single:
            exported.save(written)
        else:
            exported.export(str(written), format="tf_saved_model", verbose=False)
            exported.save(written / ARCHIVE)
        check(path, target)  # once more: it took a while
        _exchange(written, target, Path(beside, "before"))
    if not single and _PATTERN.search(str(target)):
        warnings.warn(
            f"TensorFlow takes {path} for a pattern, because of its name, and cannot load the "
            "SavedModel there. Move the folder, or load model.keras in it.",
            stacklevel=2,
        )
    return path


def _exchange(written: Path, target: Path, before: Path) -> None:
    """Renames an export to its target; an earlier one goes to `before`, and back on a failure."""
    if not target.is_dir():
        os.replace(written, target)
        return
    os.rename(target, before)
    try:
        os.replace(written, target)
    except BaseException:
        os.rename(before, target)
        raise


def _check_folder(path: Path, target: Path) -> None:
    """Raises where a folder cannot be made, or replaced without the loss of something else."""
    if not target.exists():
        return
    if not target.is_dir():
        raise _refusal(path, "is a file")
    foreign = sorted(name for name in os.listdir(target) if name not in EXPORTED)
    if (target / "variables").is_dir():
        names = os.listdir(target / "variables")
        foreign += sorted(f"variables/{n}" for n in names if not n.startswith("variables."))
    if foreign:
        raise _refusal(path, f"holds {', '.join(foreign[:3])}")
    if os.listdir(target) and not all((target / name).is_file() for name in (SAVED, ARCHIVE)):
        raise _refusal(path, "is a folder")


def _check_archive(path: Path, target: Path) -> None:
    """Raises where a file cannot be made, or replaced without the loss of something else."""
    if not target.exists():
        return
    if not target.is_file():
        raise _refusal(path, "is a folder")
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(target) as archive:
        if set(ARCHIVED) <= set(archive.namelist()):
            return
    raise _refusal(path, "is no Keras model")


def _refusal(path: Path, reason: str) -> ExportRefusedError:
    return ExportRefusedError(
        f"export({str(path)!r}): {path.name} {reason}. It is no earlier export, and is not "
        "replaced. Give a path that does not exist."
    )
