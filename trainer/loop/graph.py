"""What a traced graph is made of: its operations, and the variables that it reads or writes."""

from __future__ import annotations

import tensorflow as tf

# what reads a variable and leaves it as it is
READS = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape"}


def operations(graph) -> set[str]:
    """The types of all operations of a graph, those of the functions it calls included."""
    definition = graph.as_graph_def()
    functions = definition.library.function
    nodes = [*definition.node, *(node for f in functions for node in f.node_def)]
    return {node.op for node in nodes}


def used_variables(function) -> list[tf.Variable]:
    """The variables that a concrete function reads or writes, in the order of their first use."""
    order = {id(handle): place for place, (handle, _) in enumerate(function.graph.captures)}
    return sorted(function.variables, key=lambda v: order.get(id(v.handle), len(order)))


def written_variables(function) -> list[tf.Variable]:
    """The variables that a concrete function writes, in the order of their first use."""
    # not `captured_inputs`, which in a branch or loop would ask for what collectives need there
    written = {id(handle) for handle, inside in function.graph.captures if _is_written(inside)}
    return [v for v in used_variables(function) if id(v.handle) in written]


def slow_in_a_loop(graph) -> bool:
    """Whether XLA is known to run a step faster by itself than inside a loop.

    On a CPU a step with convolutions is: 29 ms inside a loop, 2.5 ms alone, for a small network.
    """
    on_cpu = not tf.config.list_logical_devices("GPU")
    return on_cpu and any("Conv" in name for name in operations(graph))


def _is_written(tensor) -> bool:
    """Whether an operation may change the resource of a handle in a graph."""
    return tensor.dtype == tf.resource and not all(
        _only_reads(operation, tensor) for operation in tensor.consumers()
    )


def _only_reads(operation, tensor) -> bool:
    if operation.type in READS:
        return True
    try:  # of a function that is called, and of a loop's or branch's
        unchanged = operation.get_attr("_read_only_resource_inputs")
    except ValueError:
        return False
    places = [place for place, value in enumerate(operation.inputs) if value is tensor]
    return all(place in unchanged for place in places)


def called_apart(function):
    """A function for a branch that is seldom taken, called where it is and not put in its place.

    TensorFlow puts a branch's operations into the graph around it, and visits each one of a branch
    that is not taken: 0.15 ms of every step for the four hundred of a balancer.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def stateless(function, run=None):
    """A traced function as one that leaves every variable as it was.

    What it writes is read before, and put back. Keras's variables are none of it where the
    function works in a `keras.StatelessScope`; a `tf.Variable` that a user assigns is.

    Args:
      function: a `tf.function` of tensors.
      run: the Python function that it traces, where that is to be traced in place: a function
        that holds collectives (of a normalization over replicas, say) cannot be called in a
        branch or loop.
    """

    def call(*inputs):
        written = written_variables(function.get_concrete_function(*inputs))
        before = [tf.identity(variable.read_value()) for variable in written]
        result = (run or function)(*inputs)
        for variable, value in zip(written, before, strict=True):
            variable.assign(value)
        return result

    return call
