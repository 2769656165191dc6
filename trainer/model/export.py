"""The inference model alone: no labels, no loss parameters, nothing of the loop."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import keras

from losses.errors import TermwiseError


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

    A path that ends in ".keras" gets that file alone. Written beside the target and renamed,
    so that the target is whole or what it was.
    """
    path = Path(path)
    exported = inference_model(model, outputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".keras":
        temporary = path.with_name(f".{path.stem}.{os.getpid()}.keras")
        exported.save(temporary)
        os.replace(temporary, path)
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    exported.export(str(temporary), format="tf_saved_model", verbose=False)
    exported.save(temporary / "model.keras")
    if path.exists():
        shutil.rmtree(path)
    os.replace(temporary, path)
    return path
