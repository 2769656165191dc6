"""Nothing in the training loop goes back to the host: read from the graphs that fit has run.

TensorFlow records every function that runs: as it was traced, and as it was placed, one partition
per device with `_Send` and `_Recv` where a tensor crosses. There is no GPU where
these tests run: a second CPU device stands in for it. What is pinned to the host, or held there,
would cross.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context  # tf.summary.trace_off leaves the recording on

import losses
from trainer import Trainer

ACCELERATOR = "/cpu:1"
OF_THE_HOST = {
    *("PyFunc", "PyFuncStateless", "EagerPyFunc", "Print", "PrintV2", "Assert", "Abort"),
    *("WriteSummary", "WriteScalarSummary", "WriteHistogramSummary", "WriteFile", "ReadFile"),
    *("CheckNumerics", "CheckNumericsV2", "DebugIdentity", "DebugIdentityV2", "StringFormat"),
}
LOOPS = {"While", "StatelessWhile"}


def graphs_of(run):
    """The training loops among what a callable runs for the first time, as TensorFlow has them."""
    recorder = context.context()
    recorder.enable_graph_collection()
    try:
        run()
        ran = recorder.export_run_metadata().function_graphs
    finally:
        recorder.disable_graph_collection()
    return [graph for graph in ran if any(node.op in LOOPS for node in traced([graph]))]


def traced(graphs):
    """Every node of the graphs as they were traced, functions within functions included."""
    for graph in graphs:
        yield from graph.pre_optimization_graph.node
        for function in graph.pre_optimization_graph.library.function:
            yield from function.node_def


def types(node):
    """The dtypes that a node's attributes name."""
    for attribute in node.attr.values():
        yield from [attribute.type, *attribute.list.type]


def host_ops(graphs):
    """What a node of the loop has to do with the host: op names, each once."""
    strings = tf.string.as_datatype_enum
    return sorted({n.op for n in traced(graphs) if n.op in OF_THE_HOST or strings in types(n)})


def crossing(graphs):
    """What goes from one device to another while the loop runs: the names of the tensors.

    Left out are int32 and bool, the counters and conditions of loops, which are the host's on a
    GPU too, and edges that only order.
    """
    control = tf.int32.as_datatype_enum, tf.bool.as_datatype_enum
    nodes = [node for g in graphs for part in g.partition_graphs for node in part.node]
    return [
        node.attr["tensor_name"].s.decode()
        for node in nodes
        if node.op in ("_Send", "_HostSend")
        and node.attr["T"].type not in control
        and "/ctrl/" not in node.input[0]
    ]


def pinned(graphs):
    """The ops that the code of the loop itself puts on the host."""
    return {node.op for node in traced(graphs) if node.device.endswith("CPU:0")}


X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
Y = X[:, :1] - X[:, 1:2]


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)


def mlp(*between):
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "tanh"), *between, keras.layers.Dense(1)]
    )


def noisy():
    """A term with a loss parameter."""
    size = losses.Parameter("size", 1.0)

    def likelihood(step):
        error = tf.square(step.y - step.y_pred)[:, 0]
        return error * tf.exp(-tf.convert_to_tensor(size)) + size

    return losses.term(likelihood, name="likelihood")


class Counting(Trainer):
    """Counts how often Python goes through the user's part of the step."""

    calls = calls_before = 0

    def compute_terms(self, step):
        self.calls += 1
        return super().compute_terms(step)


def several_terms():
    between = keras.layers.Dropout(0.2), keras.layers.BatchNormalization()
    kernel = keras.layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l1")
    return {
        "model": mlp(*between, kernel),
        "terms": [noisy()],
        "loss_weights": losses.UncertaintyWeight(),
        "metrics": ["mae", keras.metrics.RootMeanSquaredError()],
        "optimizer": keras.optimizers.AdamW(0.01, clipnorm=1.0, use_ema=True),
    }


CASES = {
    "a dataset": dict,
    "arrays": dict,
    "several terms": several_terms,
    "a loss scale": lambda: {
        "optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    },
    "accumulation": lambda: {
        "optimizer": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        "terms": [noisy()],
    },
    "skipped steps": lambda: {"on_nonfinite": "skip"},
    "a balancer": lambda: {"terms": [noisy()], "balancer": losses.balancing.PCGrad()},
    "gradient diagnostics": lambda: {"terms": [noisy()], "gradient_diagnostics_every": 2},
    "XLA": lambda: {"jit_compile": True, "terms": [noisy()]},
}


def run_of(name, **arguments):
    """The Trainer of a case after two fits, and the graphs of its loops."""
    given = (X, Y) if name == "arrays" else dataset()
    batch = {"batch_size": 8} if name == "arrays" else {}
    arguments = {"model": mlp, "optimizer": "adam", "loss": "mse", **CASES[name](), **arguments}
    trainer = Counting(**arguments)
    graphs = graphs_of(lambda: trainer.fit(given, steps=10, log_every=2, verbose=False, **batch))
    assert graphs, "the loop is not among what ran"
    trainer.calls_before = trainer.calls
    trainer.fit(given, steps=20, log_every=3, verbose=False, **batch)
    return trainer, graphs


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CASES)
def test_the_loop_stays_on_its_device_and_asks_nothing_of_the_host(name):
    with tf.device(ACCELERATOR):
        trainer, graphs = run_of(name, strategy="one_device")
    assert host_ops(graphs) == []
    if name == "accumulation":  # batches read ahead wait in a queue, which is the host's
        assert pinned(graphs) == {"QueueEnqueueV2", "QueueDequeueV2"}
    else:
        assert pinned(graphs) == set()
        assert crossing(graphs) == []
    assert trainer.calls == trainer.calls_before  # a further fit traces nothing again
    passes = {"accumulation": 2, "a balancer": 3, "gradient diagnostics": 3}
    assert trainer.calls == passes.get(name, 1)


def test_two_replicas_ask_nothing_of_the_host(two_replicas):
    arguments = {"model": mlp, "terms": [noisy()], "metrics": ["mae"], "strategy": two_replicas}
    trainer, graphs = run_of("a dataset", **arguments)
    assert host_ops(graphs) == []
    assert {node.device[-5:] for node in traced(graphs) if node.device} == {"CPU:0", "CPU:1"}
    assert trainer.calls == trainer.calls_before == 2  # each replica's part is traced once


def printing(step):
    tf.print(step.step)
    return tf.reduce_mean(step.y_pred, axis=-1)


def in_python(step):
    values = tf.numpy_function(lambda p: p.mean(-1), [tf.stop_gradient(step.y_pred)], tf.float32)
    return tf.ensure_shape(values, [None])


def on_the_host(step):
    with tf.device("/cpu:0"):
        return tf.reduce_mean(step.y_pred, axis=-1)


@pytest.mark.parametrize(
    ("function", "op"), [(printing, "PrintV2"), (in_python, "PyFunc"), (on_the_host, None)]
)
def test_what_goes_to_the_host_is_found(function, op):
    """The checks above can fail."""
    with tf.device(ACCELERATOR):
        terms = [losses.term(function, name="bad")]
        _, graphs = run_of("a dataset", strategy="one_device", terms=terms)
    if op is not None:
        assert op in host_ops(graphs)
    else:
        assert pinned(graphs)
        assert crossing(graphs)


@pytest.mark.parametrize(
    "seldom", [{"balancer": losses.balancing.UPGrad(every=20)}, {"gradient_diagnostics_every": 20}]
)
def test_the_loop_holds_no_products_of_a_branch_that_is_seldom_taken(seldom):
    def products(**arguments):
        trainer = Trainer(mlp(), loss="mse", terms=[noisy()], optimizer="sgd", **arguments)
        data = dataset()
        graphs = graphs_of(lambda: trainer.fit(data, steps=3, verbose=False))
        parts = [part for graph in graphs for part in graph.partition_graphs]
        return sorted(node.op for part in parts for node in part.node if "MatMul" in node.op)

    assert products(**seldom) == products() != []
