"""How many collectives one step of two hosts holds, and how large they are, read from its graph.

    python -m trainer.launch --workers=2 -- python -m benchmarks.collectives

prints a table in Markdown: what the step is, how many collectives it has, and the bytes that each
host brings to them. Nothing is timed and no step is run: the figures depend on no machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from trainer import Trainer, resolve_strategy

BATCH, INPUTS = 64, 32


def collectives(function) -> tuple[list[int], int]:
    """The bytes of each sum over hosts in a concrete function; how many other collectives it has.

    Functions that it calls are looked through too; a call in them that is not a sum of one static
    shape counts as the other kind.
    """
    sizes, others = [], 0
    for operation in function.graph.get_operations():
        if operation.type.startswith("CollectiveReduce"):
            value = operation.outputs[0]
            count = value.shape.num_elements()
            if count is None:
                others += 1
            else:
                sizes.append(count * value.dtype.size)
        elif operation.type.startswith("Collective") and "Group" not in operation.type:
            others += 1
    library = function.graph.as_graph_def().library.function
    nodes = (node for inner in library for node in inner.node_def)
    others += sum(node.op.startswith("Collective") and "Group" not in node.op for node in nodes)
    return sizes, others


def traced(strategy, terms=1, width=64, depth=2, head=1, normalized=False, **settings):
    """The concrete function of one step of an MLP with some terms; its number of parameters."""
    import keras

    import losses

    def build():
        layers = [keras.Input((INPUTS,))]
        for _ in range(depth):
            layers.append(keras.layers.Dense(width, activation="tanh"))
            if normalized:
                layers.append(keras.layers.BatchNormalization())
        return keras.Sequential([*layers, keras.layers.Dense(head)])

    class Power(losses.Term):
        """The mean of a power of the output."""

        def __init__(self, power):
            super().__init__(name=f"power_{power}")
            self.power = power

        def call(self, step):
            return tf.reduce_mean(tf.abs(step.y_pred) ** (1 + 0.01 * self.power), axis=-1)

    built = Trainer(
        build,
        optimizer="adam",
        loss="mse",
        terms=[Power(index) for index in range(1, terms)],
        strategy=strategy,
        **settings,
    )
    x = tf.random.stateless_normal([BATCH, INPUTS], [0, 1])
    built.build((x, x[:, :head]), batch_size=BATCH)
    (step,) = built._run.programs.steps
    parameters = sum(int(tf.size(v)) for v in built.model.trainable_variables)
    return step.function, parameters


def cases():
    """What is traced: title -> arguments of `traced`."""
    from losses import balancing

    yield "1 term", {}
    yield "8 terms", {"terms": 8}
    yield "32 terms", {"terms": 32}
    yield "1 term, 16 times the parameters", {"width": 288}
    yield "1 term, 150 times the parameters", {"width": 960}
    yield "1 term, 10 layers", {"depth": 10}
    yield "1 term, batch normalization", {"normalized": True}
    for name, make in (
        ("DynamicWeightAverage", balancing.DWA),
        ("GradNorm", balancing.GradNorm),
        ("PCGrad", balancing.PCGrad),
        ("UPGrad", balancing.UPGrad),
    ):
        for terms in (2, 8):
            yield f"{terms} terms, {name}", {"terms": terms, "balancer": make()}


def main() -> None:
    strategy = resolve_strategy("multi_worker")
    chief = strategy.cluster_resolver.task_id == 0
    if chief:
        print("| step | parameters | sums over hosts | bytes | largest | other collectives |")
        print("|---|---|---|---|---|---|")
    for title, settings in cases():
        try:
            function, parameters = traced(strategy, **settings)
        except Exception as error:  # one case that cannot be traced leaves the others
            found = f"failed: {type(error).__name__}: {str(error)[:100]}"
        else:
            sizes, others = collectives(function)
            found = (
                f"{parameters:,} | {len(sizes)} | {sum(sizes):,} | {max(sizes, default=0):,} | "
                f"{others}"
            )
        if chief:
            print(f"| {title} | {found} |", flush=True)


if __name__ == "__main__":
    main()
