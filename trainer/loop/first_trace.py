"""The first trace of a run: the model built, every term and variable found, the optimizers made."""

from __future__ import annotations

import tensorflow as tf

from losses.errors import TermwiseError
from trainer.data.class_weight import checked_class_weight
from trainer.distributed.strategies import resolve_strategy
from trainer.model.build import build_model


def trace(trainer, source, class_weight=None) -> None:
    """Traces one training step of a source; what is traced already is not traced again.

    Raises:
      RuntimeError: called inside a strategy's scope.
      ValueError: loss parameters where XLA on several replicas cannot read them.
    """
    if tf.distribute.has_strategy():
        resolve_strategy(trainer.strategy)  # says why not
    loops, replica = trainer.loops, trainer.loops.replica
    build_model(trainer.model, trainer.strategy, _of_any_size(source.element_spec))
    class_weight = checked_class_weight(class_weight)
    if class_weight != replica.class_weight:
        replica.class_weight = class_weight
        loops.forget_steps()
    if not loops.prepared:
        loops.prepare(source)
        if replica.balancing is not None:
            objective = trainer.objective
            objective.described = replica.balancing.described(objective.described)
        found = replica.trained
        replica.optimizers.build(found.owners, found.variables, found.parameters)
        if replica.optimizers.mirrored_copies and loops.first_pass:
            names = ", ".join(map(repr, replica.optimizers.mirrored_copies))
            raise TermwiseError(
                f"Loss parameters {names} were made "
                "outside the strategy's scope, and what XLA compiles for several replicas "
                "cannot read them. Make them in build_terms(), or pass jit_compile=False."
            )
        trainer.state.spread_seeds()
    loops.train_step(source)


def _of_any_size(spec):
    """The structure of batches of any size: a model is not built for one of them."""
    return tf.nest.map_structure(
        lambda one: (
            tf.TensorSpec([None, *one.shape[1:]], one.dtype)
            if isinstance(one, tf.TensorSpec) and one.shape.rank
            else one
        ),
        spec,
    )


def operations(graph) -> set[str]:
    """The types of all operations of a graph, those of the functions it calls included."""
    defined = graph.as_graph_def()
    nodes = [*defined.node, *(node for f in defined.library.function for node in f.node_def)]
    return {node.op for node in nodes}
