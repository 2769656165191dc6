"""The inference model alone: no labels, no loss parameters, nothing of the loop."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from losses.errors import TermwiseError
from losses.objective.model_terms import overrides

ARCHIVE = "model.keras"
# The first line of the comment of a model.keras, which is a zip. The others name what was exported
# with it: that, and nothing else, a further export may replace.
MARK = "exported by termwise"
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


@dataclass(frozen=True)
class Export:
    """An inference model, and where it goes: a folder, or a path that ends in ".keras".

    Attributes:
      model: what is exported.
      path: as it was given.
    """

    model: keras.Model
    path: Path

    @classmethod
    def of(cls, model: keras.Model, path, outputs=None) -> Export:
        """The export of a model.

        Args:
          outputs: as of `inference_model`.
        Raises:
          ValueError: the model has no `call`, or not these outputs.
        """
        if not overrides(model, "call"):
            raise TermwiseError(
                f"export() writes what the model's call() computes, and the {type(model).__name__} "
                "has none. Give it one, or export its parts: trainer.model.part.export(path)."
            )
        return cls(inference_model(model, outputs), Path(path))

    @property
    def single(self) -> bool:
        """Whether it is one file."""
        return self.path.suffix == ".keras"

    def check(self, target: Path) -> None:
        """FileExistsError: what stands at the target is not an earlier export, or more than that.

        Args:
          target: what the path leads to.
        """
        (_check_archive if self.single else _check_folder)(self.path, target)

    def write(self, folder: Path) -> Path:
        """Writes a SavedModel that holds `model.keras` as well, or that file alone; its path."""
        if self.single:
            _save_marked(self.model, folder / ARCHIVE, [])
            return folder / ARCHIVE
        written = folder / "export"
        self.model.export(str(written), format="tf_saved_model", verbose=False)
        _save_marked(self.model, written / ARCHIVE, _entries(written))
        return written

    def warn(self, target: Path) -> None:
        """Says so where TensorFlow will not load it from there."""
        if not self.single and _PATTERN.search(str(target)):
            warnings.warn(
                f"TensorFlow takes {self.path} for a pattern, because of its name, and cannot load "
                "the SavedModel there. Move the folder, or load model.keras in it.",
                stacklevel=3,
            )


def _check_folder(path: Path, target: Path) -> None:
    """Raises where a folder cannot be made, or replaced without the loss of something else."""
    if not target.exists():
        return
    if not target.is_dir():
        raise _refusal(path, "is a file")
    names = sorted(os.listdir(target))
    if not names:
        return
    exported = _exported(target / ARCHIVE)
    if exported is None:
        raise _refusal(path, f"holds {', '.join(names[:3])}")
    foreign = [entry for entry in _entries(target) if entry not in exported]
    if foreign:
        raise _refusal(path, f"holds {', '.join(foreign[:3])}")


def _entries(folder: Path) -> list[str]:
    """All that lies in a folder, and in those below it."""
    return sorted(entry.relative_to(folder).as_posix() for entry in folder.rglob("*"))


def _check_archive(path: Path, target: Path) -> None:
    """Raises where a file cannot be made, or replaced without the loss of something else."""
    if not target.exists():
        return
    if _exported(target) is None:
        raise _refusal(path, "is a folder" if target.is_dir() else "was saved by something else")


def _save_marked(model: keras.Model, file: Path, beside: list[str]) -> None:
    """Saves a model, and marks the file as one that a further export may replace.

    Args:
      beside: the other entries of the folder of the export.
    """
    model.save(file)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = "\n".join([MARK, file.name, *beside]).encode()


def _exported(file: Path) -> set[str] | None:
    """The entries of the export to which a model.keras belongs; None where it is of none."""
    if file.is_file():  # opening a pipe would wait for its writer
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
            mark, *entries = archive.comment.decode(errors="replace").split("\n")
            return set(entries) if mark == MARK else None
    return None


def _refusal(path: Path, reason: str) -> ExportRefusedError:
    return ExportRefusedError(
        f"export({str(path)!r}): {path.name} {reason}. It is no earlier export, and is not "
        "replaced. Give a path that does not exist."
    )
