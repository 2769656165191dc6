"""Arrays of other libraries: taken as NumPy reads them, or refused with what to write instead."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.batch import parts_by_name
from trainer.data.source import ACCEPTED, SIGNATURE, of_generator, of_py_dataset

SHOWN_COLUMNS = 4


def array_of(value, what: str) -> np.ndarray | tf.Tensor:
    """A leaf of what a user passes as arrays, as NumPy's array or as the tensor it is.

    Args:
      value: an array of NumPy, TensorFlow, pandas, torch (on the CPU), or what NumPy reads as one.
      what: the argument's name, for errors.
    Raises:
      TypeError: no array, or one whose meaning would be lost: the message says what to write.
    """
    if isinstance(value, tf.Tensor | tf.Variable):
        return value
    refusal = _refusal(value, what)
    if refusal is not None:
        raise TermwiseTypeError(refusal)
    try:
        array = _of_pandas(value, what) if _library(value) == "pandas" else np.asarray(value)
    except TermwiseError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        advice = f"{_accepted()}."
        if _library(value) == "torch":
            advice = "Write tensor.detach().cpu()."
        raise TermwiseTypeError(
            f"{what} holds a {_name(value)}, which NumPy cannot read ({_first_line(error)}). "
            f"{advice}"
        ) from error
    if array.dtype == object:
        kinds = sorted({type(item).__name__ for item in array.ravel()[:1000]})
        raise TermwiseTypeError(
            f"{what} holds {'an array' if array.ndim else 'a value'} of Python objects "
            f"({', '.join(kinds)}), which is no array of numbers. {_accepted()}."
        )
    return array


def check_aligned(arrays, what: str) -> None:
    """Refuses pandas objects whose rows have the same labels in another order.

    They are read by position, as in Keras: each row would be given another row's label.

    Raises:
      ValueError: names the two parts.
    """
    frames = {n: part for n, part in parts_by_name(arrays).items() if _library(part) == "pandas"}
    first = next(iter(frames), "")
    for name, part in frames.items():
        index, other = frames[first].index, part.index
        if len(index) != len(other) or index.equals(other):
            continue
        if index.sort_values().equals(other.sort_values()):
            raise TermwiseError(
                f"{what}: {first} and {name} have the same row labels in another order, and rows "
                f"are paired by position. Write {name}.loc[{first}.index], or .to_numpy() of both "
                "where the positions are right."
            )


def _refusal(value, what: str) -> str | None:
    """Why a value is refused, and what to write; None where it may be an array."""
    kind = f"{what} is a {_name(value)}"
    if isinstance(value, keras.utils.PyDataset):
        return f"{kind}. {of_py_dataset(what)}"
    if _library(value) == "tensorflow" and callable(getattr(value, "__next__", None)):
        return f"{what} is an iterator of a tf.data.Dataset. Pass the dataset itself."
    if _library(value) == "torch" and not hasattr(value, "numpy"):
        return f"{kind} of torch. {_of_torch(value, what)}"
    if callable(getattr(value, "__next__", None)) or callable(value):
        return f"{kind}. {of_generator()}"
    if value is None or isinstance(value, tf.data.Dataset | str | set | bytes):
        holds = "is None" if value is None else f"holds a {_name(value)}"
        return f"{what} {holds}, which is no array. {_accepted()}."
    if _library(value) == "scipy":
        return f"{what} holds a sparse {_name(value)}. {_of_sparse('x.toarray()')}"
    if isinstance(value, tf.SparseTensor):
        return f"{what} holds a SparseTensor. {_of_sparse('tf.sparse.to_dense(x)')}"
    if isinstance(value, tf.RaggedTensor):
        return (
            f"{what} holds a RaggedTensor. Write tf.data.Dataset.from_tensor_slices((x, y))"
            ".batch(global_batch), or x.to_tensor(), which pads, as an array."
        )
    if isinstance(value, np.ma.MaskedArray) and value.mask.any():
        return (
            f"{what} holds a masked array, and its mask would be lost. Write x.filled(value), and "
            "give what does not count a sample weight of 0."
        )
    return None


def _of_sparse(dense: str) -> str:
    return (
        f"Write {dense}, or where that is too large "
        "tf.data.Dataset.from_tensor_slices((tf.SparseTensor(...), y)).batch(global_batch)."
    )


def _of_torch(value, what: str) -> str:
    """What to write for a DataLoader or a Dataset of torch."""
    batches = what if hasattr(value, "batch_size") else f"DataLoader({what}, batch_size)"
    return (
        f"Write tf.data.Dataset.from_generator(lambda: ((x.numpy(), y.numpy()) for x, y in "
        f"{batches}), {SIGNATURE})."
    )


def _of_pandas(value, what: str) -> np.ndarray:
    """The values of a pandas object whose columns are numbers; what is missing is NaN."""
    types = sys.modules["pandas"].api.types
    dtypes = value.dtypes.items() if hasattr(value, "columns") else [(value.name, value.dtype)]
    others = [
        f"{name!r} ({dtype})"
        for name, dtype in dtypes
        if not types.is_numeric_dtype(dtype) or types.is_complex_dtype(dtype)
    ]
    if others:
        more = f" and {len(others) - SHOWN_COLUMNS} more" if len(others) > SHOWN_COLUMNS else ""
        raise TermwiseTypeError(
            f"{what} holds a pandas {_name(value)} with {', '.join(others[:SHOWN_COLUMNS])}{more}, "
            "no numbers. Make them numbers: pandas.get_dummies(frame), or "
            "series.astype('category').cat.codes; or pass columns by name, {'a': frame['a']}."
        )
    array = value.to_numpy()
    return value.to_numpy(dtype="float64", na_value=np.nan) if array.dtype == object else array


def _library(value) -> str:
    """The package whose class a value has."""
    return type(value).__module__.partition(".")[0]


def _name(value) -> str:
    return type(value).__name__


def _accepted() -> str:
    return f"Accepted: {ACCEPTED}"


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120].rstrip(".")
