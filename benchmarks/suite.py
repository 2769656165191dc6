"""The benchmarks by name: who runs against whom, on how many devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

HAND = "hand-written loop"
DEFAULT = "Termwise, tf.data"
RESIDENT = "Termwise, resident arrays"
COMPILED = "Termwise, resident arrays, XLA"
ORBIT = "Orbit"
JAX = "JAX"
PRODUCTS = "matrix products alone"
PRODUCTS_COMPILED = "matrix products alone, XLA"
TERMS = (1, 2, 4, 8, 16, 32)
UNITS = (32, 128, 512, 2048)
BATCHES = (16, 64, 256, 1024)


@dataclass(frozen=True)
class Benchmark:
    """Contestants that run interleaved in one process.

    Attributes:
      title: what is trained, on what.
      contestants: a function of the strategy: label -> a function that makes `run(steps)`; it may
        raise ImportError where a package is missing.
      references: label -> the label it is compared with.
      columns: further columns of the table: what it says -> the labels of whose fastest each
        contestant is a share.
      devices: logical CPU devices of the process.
      hosts: processes.
      unit: what a rate counts.
      step: a round has a multiple of that many.
      axis: what is varied, for a curve; None for bars.
    """

    title: str
    contestants: Callable[[object], Mapping[str, Callable]]
    references: Mapping[str, str]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    devices: int = 1
    hosts: int = 1
    unit: str = "steps/s"
    step: int = 100
    axis: str | None = None
    points: Mapping[str, float] = field(default_factory=dict)


def _on_hosts(name: str, strategy) -> dict[str, Callable]:
    # Model.fit of Keras 3 does not run under MultiWorkerMirroredStrategy (keras#20585)
    found = _training(name, strategy)
    return {label: found[label] for label in (HAND, DEFAULT, RESIDENT)}


def _training(name: str, strategy) -> dict[str, Callable]:
    # TensorFlow is imported in the process that measures
    from benchmarks import references
    from benchmarks.in_jax.contestant import jax_scan
    from benchmarks.products import products_alone
    from benchmarks.termwise import termwise
    from benchmarks.workloads import WORKLOADS

    workload = WORKLOADS[name]()
    makers = {
        HAND: references.handwritten,
        DEFAULT: termwise(),
        RESIDENT: termwise(resident=True),
        COMPILED: termwise(resident=True, jit_compile=True),
        ORBIT: references.orbit_trainer,
        "fit, steps_per_execution=1": references.keras_fit(1),
        "fit, steps_per_execution=32": references.keras_fit(32),
    }
    if strategy is None:
        makers[JAX] = jax_scan(name)
        makers[PRODUCTS] = products_alone(name, False)
        makers[PRODUCTS_COMPILED] = products_alone(name, True)
    return {label: functools.partial(make, workload, strategy) for label, make in makers.items()}


def many_terms(count: int, as_one: bool, workload) -> Callable[[], list]:
    """`count` terms, each the mean square of one output against its class, or their sum as one."""
    import tensorflow as tf

    import losses

    def square(index):
        def call(step):
            target = tf.cast(tf.equal(step.y, index % 10), tf.float32)
            return tf.square(step.y_pred[:, index % 10] - target) / count

        return call

    def total(step):
        return tf.add_n([square(index)(step) for index in range(count)])

    def make():
        if as_one:
            return [losses.term(total, name="sum")]
        return [losses.term(square(index), name=f"square_{index}") for index in range(count)]

    return make


def _against_one(strategy) -> dict[str, Callable]:
    from benchmarks.termwise import termwise
    from benchmarks.workloads import mlp

    workload = mlp()
    found: dict[str, Callable] = {}
    for count in TERMS:
        for as_one, label in ((False, _separate(count)), (True, _as_one(count))):
            maker = termwise(make_terms=many_terms(count, as_one, workload))
            found[label] = functools.partial(maker, workload, strategy)
    return found


def _separate(count):
    return f"{count} terms" if count > 1 else "1 term"


def _as_one(count):
    return f"sum of {count} as one term"


def _logging(strategy) -> dict[str, Callable]:
    from benchmarks.termwise import termwise
    from benchmarks.workloads import mlp

    workload = mlp()
    return {
        f"log_every={every}": functools.partial(termwise(log_every=every), workload, strategy)
        for every in (1, 10, 100)
    }


def _evaluation(strategy) -> dict[str, Callable]:
    from benchmarks.reading import keras_evaluate, termwise_evaluate
    from benchmarks.workloads import mlp

    workload = mlp()
    return {
        "Model.evaluate": functools.partial(keras_evaluate, workload),
        "Trainer.evaluate": functools.partial(termwise_evaluate, workload),
    }


def _pairs(workload_of, values, word):
    """Termwise and the hand-written loop for each value."""

    def contestants(strategy):
        from benchmarks import references
        from benchmarks.termwise import termwise

        found = {}
        for value in values:
            workload = workload_of(value)
            labels = f"{HAND}, {word} {value}", f"{DEFAULT}, {word} {value}"
            for label, maker in zip(labels, (references.handwritten, termwise()), strict=True):
                found[label] = functools.partial(maker, workload, strategy)
        return found

    return contestants


def _pair_references(values, word):
    return {f"{DEFAULT}, {word} {value}": f"{HAND}, {word} {value}" for value in values}


def _units(units):
    from benchmarks.workloads import mlp

    return mlp(units=units)


def _batch(batch):
    from benchmarks.workloads import mlp

    return mlp(batch=batch)


def _against_hand(*labels):
    return {label: HAND for label in labels}


_ANYWHERE = _against_hand(
    DEFAULT, RESIDENT, COMPILED, ORBIT, "fit, steps_per_execution=1", "fit, steps_per_execution=32"
)
_ONE = _ANYWHERE | _against_hand(JAX, PRODUCTS, PRODUCTS_COMPILED)
_COLUMNS = {"of JAX": (JAX,), "of the bound": (PRODUCTS, PRODUCTS_COMPILED)}
_TITLES = {
    "mlp": "MLP, one hidden layer of 128, batch 64",
    "mlp_16x64": "MLP, one hidden layer of 64, batch 16",
    "cnn": "CNN, two convolutions, batch 64",
    "lstm": "LSTM with masks, batch 32",
    "lstm_unrolled": "LSTM with masks, unroll=True, batch 32",
    "transformer": "transformer of 4 blocks, batch 8",
}

SUITE: dict[str, Benchmark] = {
    name: Benchmark(title, functools.partial(_training, name), _ONE, _COLUMNS)
    for name, title in _TITLES.items()
}
for _name in ("mlp", "cnn", "lstm", "transformer"):
    SUITE[f"{_name}_2"] = Benchmark(
        f"{_TITLES[_name]}, two devices", functools.partial(_training, _name), _ANYWHERE, devices=2
    )
SUITE["mlp_4"] = Benchmark(
    f"{_TITLES['mlp']}, four devices", functools.partial(_training, "mlp"), _ANYWHERE, devices=4
)
for _name in ("mlp", "cnn"):
    SUITE[f"{_name}_hosts"] = Benchmark(
        f"{_TITLES[_name]}, two processes",
        functools.partial(_on_hosts, _name),
        _against_hand(DEFAULT, RESIDENT),
        hosts=2,
    )
SUITE["terms"] = Benchmark(
    "many terms against their sum written as one",
    _against_one,
    {_separate(count): _as_one(count) for count in TERMS},
    axis="terms",
    points={_separate(count): count for count in TERMS},
)
SUITE["logging"] = Benchmark(
    "MLP, logging more often",
    _logging,
    {"log_every=1": "log_every=100", "log_every=10": "log_every=100"},
)
SUITE["evaluation"] = Benchmark(
    "MLP, evaluation of 4096 examples, batch 64",
    _evaluation,
    {"Trainer.evaluate": "Model.evaluate"},
    unit="passes/s",
    step=1,
)
SUITE["model_size"] = Benchmark(
    "MLP, batch 64, hidden units",
    _pairs(_units, UNITS, "units"),
    _pair_references(UNITS, "units"),
    axis="hidden units",
    points={f"{DEFAULT}, units {units}": units for units in UNITS},
)
SUITE["batch_size"] = Benchmark(
    "MLP, 128 units, batch",
    _pairs(_batch, BATCHES, "batch"),
    _pair_references(BATCHES, "batch"),
    axis="batch",
    points={f"{DEFAULT}, batch {batch}": batch for batch in BATCHES},
)
