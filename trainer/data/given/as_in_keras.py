"""The arguments of Keras's fit, evaluate and predict: taken as there, or told what to write."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from losses.checks import as_number
from losses.errors import TermwiseError, TermwiseTypeError
from trainer.data.batch import is_whole
from trainer.data.given.arrays_of_others import array_of, check_aligned
from trainer.data.lengths import check_lengths
from trainer.data.named.sources import Sources
from trainer.launch.suggestion import nearest

ORDER = {
    "fit": (
        *("x", "y", "batch_size", "epochs", "verbose", "callbacks", "validation_split"),
        *("validation_data", "shuffle", "class_weight", "sample_weight", "initial_epoch"),
        *("steps_per_epoch", "validation_steps", "validation_batch_size", "validation_freq"),
    ),
    "evaluate": (
        *("x", "y", "batch_size", "verbose", "sample_weight", "steps", "callbacks", "return_dict"),
    ),
    "predict": ("x", "batch_size", "verbose", "steps", "callbacks"),
}
_PIPELINE = (
    "Python processes do not read the data: write dataset.map(function, "
    "num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE), and leave it out"
)
_OF_PIPELINES = {
    "workers": ((1,), _PIPELINE),
    "use_multiprocessing": ((False,), _PIPELINE),
    "max_queue_size": ((10,), _PIPELINE),
}
# call -> argument -> the values that change nothing, and what to write instead of others
REFUSED: dict[str, dict[str, tuple[tuple, str]]] = {
    "fit": {
        "initial_epoch": (
            (0, None),
            "a run goes on from where it stands, and epochs= is the epoch to train to: leave it "
            "out",
        ),
        "validation_steps": (
            (None,),
            "an evaluation reads all of its data: give fewer, validation_data=dataset.take(batches)"
            " or a part of the arrays",
        ),
        "validation_freq": ((1,), "write validate_every=, in steps"),
        **_OF_PIPELINES,
    },
    "evaluate": {
        "verbose": ((0, False, "auto"), "nothing is printed: print what evaluate() returns"),
        "return_dict": ((True,), "a dict is returned, always: leave it out"),
        **_OF_PIPELINES,
    },
    "predict": {
        "verbose": ((0, False, "auto"), "nothing is printed: leave it out"),
        "steps": ((None,), "give fewer data: dataset.take(batches), or a part of the arrays"),
        **_OF_PIPELINES,
    },
}

# what a Keras model has and a Trainer has not: what to write instead
METHODS = {
    "compile": "its arguments are those of Trainer(model, optimizer=, loss=, metrics=)",
    "summary": "write trainer.model.summary(), or trainer.describe() for the terms",
    "save": "write trainer.export(path); a run with workdir= keeps its state by itself",
    "save_weights": "write trainer.model.save_weights(path); workdir= keeps the state of a run",
    "load_weights": "write trainer.model.load_weights(path), or Trainer(init_from=workdir)",
    "train_on_batch": "write fit(data, steps=int(trainer.step.numpy()) + 1): one step more",
    "test_on_batch": "write evaluate(data)",
    "predict_on_batch": "write predict(data)",
    "add_loss": "write terms=[losses.term(function, name=...)], or override compute_terms",
    "add_metric": "write metrics=, or a term of weight 0",
    **dict.fromkeys(
        ("layers", "weights", "variables", "trainable_variables", "trainable_weights", "get_layer"),
        "the model's own stand in trainer.model, the loss parameters in trainer.loss_parameters",
    ),
}


class FitData(NamedTuple):
    """What `fit` is given as data, and as Keras's arguments.

    data, validation_data: as `Trainer.fit` takes them.
    steps_per_epoch: a whole number, or None: those of a pass.
    validation_batch_size: of arrays that are evaluated; None: as in training.
    """

    data: Any
    validation_data: Any
    steps_per_epoch: int | None
    validation_batch_size: int | None


def fit_data(method, data, y, further: tuple, others: Mapping[str, Any], validation) -> FitData:
    """What a call of fit is given.

    Args:
      method: `Trainer.fit`, of whose arguments names are suggested.
      data, y, further: as in `given_data`.
      others: what was passed beside the arguments that the method names.
      validation: `validation_data`, and `validation_sets`.
    Raises:
      TypeError, ValueError: as `taken`, `given_data` and `split_off`; a split beside other data.
    """
    x, weights, split, steps_per_epoch, batch_size = taken(
        method,
        others,
        "x",
        "sample_weight",
        "validation_split",
        "steps_per_epoch",
        "validation_batch_size",
    )
    data = given_data("fit", data, y, further, x, weights)
    if steps_per_epoch is not None and (not is_whole(steps_per_epoch) or steps_per_epoch < 1):
        raise TermwiseError(
            f"steps_per_epoch={steps_per_epoch!r}: give a whole number of at least 1."
        )
    if not split:  # 0 as in Keras: none
        if batch_size is not None and all(each is None for each in validation):
            raise TermwiseError(
                f"validation_batch_size={batch_size} goes with validation_data=, "
                "validation_sets= or validation_split=, and there is none."
            )
        return FitData(data, validation[0], steps_per_epoch, batch_size)
    if any(each is not None for each in validation):
        raise TermwiseError("fit() was given validation_split= beside validation data: give one.")
    return FitData(*split_off(data, split), steps_per_epoch, batch_size)


def read_data(method, data, y, further: tuple, others: Mapping[str, Any], callbacks=True) -> tuple:
    """What a call that trains nothing is given: the data, and Keras's `callbacks=` or None.

    Args:
      method, data, y, further, others: as in `fit_data`.
      callbacks: whether the call takes some.
    """
    names = ["x", *["callbacks"] * callbacks, *["sample_weight"] * (method.__name__ != "predict")]
    values = dict(zip(names, taken(method, others, *names), strict=True))
    heard = values.pop("callbacks", None)
    return given_data(method.__name__, data, y, further, **values), heard


def taken(method: Callable, others: Mapping[str, Any], *names: str) -> list:
    """The values of those of some arguments of Keras that a call takes; None where not given.

    Args:
      method: the Trainer's.
      others: what was passed beside the arguments that the method names.
      names: of Keras, which the call takes.
    Raises:
      TypeError: another argument, with what to write, or which was probably meant.
    """
    call, parameters = method.__name__, inspect.signature(method).parameters.values()
    known = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    for name, value in others.items():
        if name in names:
            continue
        neutral, advice = REFUSED.get(call, {}).get(name, ((), ""))
        if not advice:
            like = nearest(name, [*known, *names])
            meant = f" Did you mean {like}=?" if like else f" There are {', '.join(known)}."
            raise TermwiseTypeError(f"{call}() has no argument {name!r}.{meant}")
        if not any(value is each or (type(value), value) == (type(each), each) for each in neutral):
            raise TermwiseTypeError(
                f"{call}({name}={_shown(value)}) is not taken as in Keras: {advice}."
            )
    return [others.get(name) for name in names]


def given_data(
    call: str, data, y=None, further: tuple = (), x=None, sample_weight=None, what: str = "data"
):
    """What a call is given, as one: data as they are, or x, y and sample_weight as a tuple.

    Args:
      call: the method's name.
      data: the first argument, or None; with `y` it is x.
      y: labels, or None.
      further: what else was passed by position.
      x: the first argument by Keras's name, or None.
      sample_weight: of x and y, or of data that are (x, y).
    Raises:
      TypeError: nothing, something twice, or more than can be joined.
    """
    _check_positions(call, further, 1 if y is None else 2)
    if data is not None and x is not None:
        raise TermwiseTypeError(f"{call}() was given data and x=: give one of them.")
    if data is None and x is None:
        raise TermwiseTypeError(f"{call}() was given no data: write {call}(x, y) or {call}(data).")
    if y is None and sample_weight is None:
        return data if x is None else (x,) if type(x) is tuple else x
    data = x if data is None else data
    beside = "y" if y is not None else "sample_weight"
    if isinstance(data, Sources | tf.data.Dataset) or callable(data) or _is_iterated(data):
        raise TermwiseTypeError(
            f"{call}({beside}=) goes with arrays, and {what} is a {type(data).__name__}, which "
            "gives its own: have it yield (x, y) or (x, y, sample_weight)."
        )
    if y is not None:
        return (data, y) if sample_weight is None else (data, y, sample_weight)
    if type(data) is not tuple or len(data) != 2:
        raise TermwiseTypeError(
            f"{call}(sample_weight=) goes with x and y: write {call}(x, y, sample_weight=weights)."
        )
    return (*data, sample_weight)


def split_off(data, fraction) -> tuple[Any, Any]:
    """What is trained on, and what is evaluated: the last examples, before any is shuffled.

    Args:
      data: arrays.
      fraction: `validation_split=`, between 0 and 1.
    Raises:
      TypeError: data that are no arrays.
      ValueError: a fraction that leaves nothing of one of them.
    """
    share = as_number(fraction)
    if share is None or not 0 < share < 1:
        raise TermwiseError(f"validation_split={fraction!r}: give a number between 0 and 1.")
    if isinstance(data, Sources | tf.data.Dataset) or callable(data) or _is_iterated(data):
        raise TermwiseTypeError(
            f"validation_split= splits arrays, and data is a {type(data).__name__}. Write "
            "validation_data=dataset.take(n), and train on dataset.skip(n)."
        )
    check_aligned(data, "data")
    arrays = tf.nest.map_structure(lambda leaf: array_of(leaf, "data"), data)
    check_lengths(arrays, "data")
    examples = int(tf.nest.flatten(arrays)[0].shape[0])
    first = math.floor(examples * (1.0 - share))
    if not 0 < first < examples:
        raise TermwiseError(
            f"validation_split={fraction!r} of {examples} examples leaves {first} to train on and "
            f"{examples - first} to evaluate. Give at least one of each."
        )
    before = tf.nest.map_structure(lambda array: array[:first], arrays)
    return before, tf.nest.map_structure(lambda array: array[first:], arrays)


def _check_positions(call: str, further: tuple, taken_by_position: int) -> None:
    if not further:
        return
    names = ORDER.get(call, ())[taken_by_position:]
    told = [f"{name}={_shown(value)}" for name, value in zip(names, further, strict=False)]
    written = f" Write {', '.join(told)}." if told else " Give them by name."
    raise TermwiseTypeError(
        f"{call}() takes {'data' if call == 'predict' else 'x and y, or data,'} by position, and "
        f"was given {len(further)} more.{written}"
    )


def _is_iterated(data) -> bool:
    """Whether data yields batches, and is no array."""
    return hasattr(data, "__next__") or (
        hasattr(data, "__getitem__")
        and not hasattr(data, "shape")
        and not isinstance(data, list | tuple | Mapping)
    )


def _shown(value) -> str:
    """A value in an error: itself where that is short."""
    text = repr(value)
    return text if len(text) <= 40 and "\n" not in text else "..."
