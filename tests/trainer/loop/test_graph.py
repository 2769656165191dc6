"""What a graph reads and writes; a pass that leaves every variable as it was."""

import tensorflow as tf

from trainer.loop.graph import stateless, used_variables, written_variables

SPEC = tf.TensorSpec([], tf.float32)


def variables(*names):
    return {name: tf.Variable([1.0, 2.0], name=name) for name in names}


def function_of(v, compiled=None):
    """Reads a and table, writes b, and c in a branch, d in a loop, e in a function it calls."""

    @tf.function(autograph=False, jit_compile=compiled)
    def inner(x):
        v["e"].assign_add([x, x])
        return v["e"] + v["a"]

    @tf.function(autograph=False)
    def function(x):
        v["b"].assign_sub([x, x])
        total = tf.gather(v["table"], 1) + inner(x)[0]
        total += tf.cond(x > 0, lambda: v["c"].assign_add([x, x])[0], lambda: 0.0)

        def body(i, total):
            v["d"].assign(v["d"] + v["a"])
            return i + 1, total + x

        return tf.while_loop(lambda i, _: i < 3, body, (0, total))[1]

    return function


def test_the_written_variables_are_told_from_those_only_read():
    v = variables("table", "b", "c", "d", "e", "a")
    concrete = function_of(v).get_concrete_function(SPEC)
    assert [variable.name[0] for variable in written_variables(concrete)] == ["b", "e", "c", "d"]
    used = [variable.name.split(":")[0] for variable in used_variables(concrete)]
    assert used == ["b", "table", "e", "a", "c", "d"]


def test_a_stateless_pass_puts_back_what_it_writes():
    for compiled in (None, True):
        v = variables("table", "b", "c", "d", "e", "a")
        function = function_of(v, compiled)
        twice = tf.function(lambda x, f=function: [stateless(f)(x) for _ in range(2)])
        first, second = twice(tf.constant(2.0))
        assert float(first) == float(second)
        assert all(variable.numpy().tolist() == [1, 2] for variable in v.values())
        assert float(function(tf.constant(2.0))) == float(first)
        assert v["b"].numpy().tolist() == [-1, 0] and v["d"].numpy().tolist() == [4, 8]


def test_a_pass_that_writes_nothing_is_traced_as_it_is():
    a = tf.Variable(3.0)
    function = tf.function(lambda x: a * x, autograph=False)
    plain = tf.function(lambda x: function(x)).get_concrete_function(SPEC).graph
    same = tf.function(lambda x: stateless(function)(x)).get_concrete_function(SPEC).graph
    kinds = [[operation.type for operation in graph.get_operations()] for graph in (plain, same)]
    assert kinds[0] == kinds[1]
