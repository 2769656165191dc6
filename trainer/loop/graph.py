"""What a traced graph is made of."""

from __future__ import annotations


def operations(graph) -> set[str]:
    """The types of all operations of a graph, those of the functions it calls included."""
    definition = graph.as_graph_def()
    functions = definition.library.function
    nodes = [*definition.node, *(node for f in functions for node in f.node_def)]
    return {node.op for node in nodes}
