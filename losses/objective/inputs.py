"""Which of the data's inputs the model takes."""

from __future__ import annotations


def model_inputs(model, x):
    """The part of `x` that the model takes: a dict may hold more, for the terms alone.

    Args:
      model: a Keras model.
      x: the inputs as the data gives them.
    Returns:
      `x`; where it is a dict of more than a functional model's inputs, those inputs.
    """
    if not isinstance(x, dict):
        return x
    wanted = getattr(model, "input", None)
    if wanted is None and getattr(model, "inputs", None):  # of a Sequential model
        wanted = model.inputs[0]
    if wanted is None:  # a subclassed model does not say
        return x
    if isinstance(wanted, dict):
        return {name: x[name] for name in wanted} if set(wanted) <= set(x) else x
    tensors = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    names = [getattr(tensor, "name", None) for tensor in tensors]
    if not set(names) <= set(x):
        return x
    picked = [x[name] for name in names]
    return picked if isinstance(wanted, (list, tuple)) else picked[0]
