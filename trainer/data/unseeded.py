"""What in a tf.data pipeline draws without a seed, so that a resumed run reads other batches."""

from __future__ import annotations

import tensorflow as tf

from trainer.data.prefetch import parts_of_pipeline

_SEEDS = ("seed", "seed2")


def find_unseeded(dataset: tf.data.Dataset, again: bool = False) -> list[str]:
    """What of a pipeline is not the same function of its seeds each time, in words.

    `keras.utils.set_random_seed` (or `tf.random.set_seed`) before the pipeline is made seeds all of
    it. What Python draws in a generator or a `py_function` is not seen.

    Args:
      dataset: the pipeline.
      again: whether this very object was read before: its shuffles then draw on.

    Example:
      >>> data = tf.data.Dataset.range(8)
      >>> find_unseeded(data.shuffle(8, seed=1).batch(2))
      []
    """
    unseeded = []
    if dataset.options().deterministic is False:
        unseeded.append("options().deterministic=False")
    for part in parts_of_pipeline(dataset):
        if _no_seed(part):
            unseeded.append(f"{_name(part)}() without a seed")
        elif again and getattr(part, "_reshuffle_each_iteration", False):
            unseeded.append(f"{_name(part)}() of a pipeline that was read before")
        if getattr(part, "_deterministic", None) == "false":
            unseeded.append(f"{_name(part)}(deterministic=False)")
        for function in part._functions():
            draws = sorted(_unseeded_draws(function.function.graph.as_graph_def()))
            unseeded += [f"{draw} without a seed in {_name(part)}()" for draw in draws]
    return list(dict.fromkeys(unseeded))


def _no_seed(part) -> bool:
    """Whether a dataset draws by seeds, both of which are 0: TensorFlow then takes any."""
    if not (hasattr(part, "_seed") and hasattr(part, "_seed2")):
        return False
    return not int(part._seed) and not int(part._seed2)


def _unseeded_draws(graph_def) -> set[str]:
    """The types of the operations that draw by seeds, both of which are 0."""
    nodes = [*graph_def.node, *(node for f in graph_def.library.function for node in f.node_def)]
    return {
        node.op
        for node in nodes
        if all(name in node.attr and not node.attr[name].i for name in _SEEDS)
    }


def _name(part) -> str:
    """The method that made a dataset: `shuffle` of `_ShuffleDataset`."""
    return type(part).__name__.strip("_").removesuffix("Dataset").lower()
