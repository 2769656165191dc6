"""Accumulated steps equal one step of their batches together, however these differ in size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.distributed import gather_examples
from trainer import Trainer

SIZES = (5, 1, 9)
TWO_VIEWS = ("nt_xent", "info_nce")


def build():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(15, 3)).astype("float32")
    return x, rng.normal(size=(15, 1)).astype("float32"), rng.uniform(0, 3, 15).astype("float32")


def pipeline(arrays, sizes):
    def batches():
        start = 0
        for size in sizes:
            yield tuple(array[start : start + size] for array in arrays)
            start += size

    spec = tuple(tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arrays)
    return tf.data.Dataset.from_generator(batches, output_signature=spec)


def weights(sizes, accumulate, strategy="one_device", steps=None, **arguments):
    arguments = {"loss": "mse", **arguments}
    every = {"gradient_accumulation_steps": 3} if accumulate else {}
    trainer = Trainer(
        build, optimizer=keras.optimizers.SGD(0.1, **every), strategy=strategy, **arguments
    )
    trainer.fit(pipeline(data(), sizes), steps=steps or 2 * len(sizes), verbose=False)
    return np.asarray(trainer.model.layers[0].kernel.value.read_value())


@pytest.mark.parametrize(
    "arguments",
    [
        dict(),
        dict(loss=lambda: keras.losses.Huber(reduction="mean_with_sample_weight")),
        dict(
            terms=lambda: [
                losses.term(  # another denominator than the loss's: positive examples
                    lambda s: losses.Ratio(
                        tf.reduce_sum(tf.nn.relu(s.y) * s.y_pred**2),
                        tf.reduce_sum(tf.cast(s.y > 0, tf.float32)),
                    ),
                    name="positive",
                )
            ]
        ),
    ],
    ids=["a mean", "a weighted mean", "two denominators"],
)
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_window_of_uneven_batches_equals_one_batch(arguments, replicas, two_replicas):
    strategy = two_replicas if replicas == 2 else "one_device"
    given = {k: v() for k, v in arguments.items()}
    other = {k: v() for k, v in arguments.items()}
    np.testing.assert_allclose(
        weights(SIZES, True, strategy, **given), weights((15,), False, **other), rtol=2e-6
    )


def test_a_run_that_stops_inside_a_window_goes_on_as_if_it_had_not(workdir):
    weights(SIZES, True, steps=4, workdir=workdir)
    resumed = weights(SIZES, True, steps=6, workdir=workdir)
    np.testing.assert_array_equal(resumed, weights(SIZES, True, steps=6))


def near(step):
    keys, _ = gather_examples(step.y_pred)
    return tf.reduce_mean(tf.square(step.y_pred - keys[:1]), -1)


@pytest.mark.parametrize(
    "arguments",
    [
        *(dict(loss=kind) for kind in ("nt_xent", "info_nce", "sup_con", "triplet", "n_pairs")),
        dict(terms=[losses.term(near)]),
    ],
    ids=lambda arguments: arguments.get("loss", "near"),
)
def test_what_compares_examples_is_refused(arguments):
    """Each of the accumulated steps would compare its own alone."""

    def build(**optimizer):
        head = keras.layers.Reshape((2, 4)) if arguments.get("loss") in TWO_VIEWS else None
        layers = [keras.Input((3,)), keras.layers.Dense(8), *([head] if head else [])]
        sgd = keras.optimizers.SGD(0.1, **optimizer)
        trainer = Trainer(keras.Sequential(layers), optimizer=sgd, **arguments)
        return trainer.build((np.ones((8, 3), "float32"), np.arange(8) % 2), batch_size=8)

    build()
    with pytest.raises(losses.TermwiseError, match="under gradient_accumulation_steps=3") as error:
        build(gradient_accumulation_steps=3)
    name = arguments.get("loss", "near")
    assert any(repr(name) in note for note in error.value.__notes__)


def test_an_evaluation_compares_what_it_is_given():
    sgd = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    trainer = Trainer(build(), optimizer=sgd, loss="mse", terms=[losses.term(near)])
    x, y, _ = data()
    assert trainer.evaluate((x, y), batch_size=15)["raw/near"] > 0


def test_arrays_look_ahead_by_position():
    def train(sizes, **accumulation):
        optimizer = keras.optimizers.SGD(0.1, **accumulation)
        trainer = Trainer(build, optimizer=optimizer, loss="mse")
        batch = sizes[0]
        trainer.fit(data()[:2], batch_size=batch, epochs=2, shuffle=False, verbose=False)
        return trainer.model.layers[0].kernel.numpy()

    # 15 examples as 7, 7 and 1
    accumulated = train([7], gradient_accumulation_steps=3)
    np.testing.assert_allclose(accumulated, train([15]), rtol=2e-6)


def test_optimizers_that_accumulate_differently_are_an_error():
    trainer = Trainer(
        build,
        optimizer={
            "a": keras.optimizers.SGD(gradient_accumulation_steps=2),
            "b": keras.optimizers.SGD(gradient_accumulation_steps=3),
        },
        groups={"a": "*/kernel", "b": "*/bias"},
        loss="mse",
    )
    with pytest.raises(ValueError, match="accumulate the same number"):
        trainer.fit(data()[:2], batch_size=5, steps=1)


class Counting(losses.Term):
    """Counts its steps, and keeps a running mean of the labels, in variables of either kind."""

    def __init__(self, kind):
        super().__init__(name="counting", weight=0.1)
        self.count = kind(0, trainable=False, dtype="int32")
        self.mean = kind(0.0, trainable=False)

    def call(self, step):
        if step.training:
            self.count.assign(self.count + 1)
            self.mean.assign(0.5 * self.mean + 0.5 * tf.reduce_mean(step.y))
        return tf.square(step.y_pred - 1.0)[:, 0]


class BothKinds(Trainer):
    def build_terms(self):
        keras_kind, plain = Counting(keras.Variable), Counting(tf.Variable)
        plain.name = "plain"
        return [keras_kind, plain]


@pytest.mark.parametrize(
    "replicas, every, settings",
    [
        (1, 2, {}),
        (2, 2, {}),
        (2, None, {"jit_compile": True}),  # a first pass sums what the terms are divided by
        (1, None, {"gradient_diagnostics_every": 1}),
    ],
)
def test_what_a_term_keeps_moves_once_a_step(replicas, every, settings, two_replicas):
    x, y, _ = data()
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=every)
    strategy = two_replicas if replicas == 2 else "one_device"
    trainer = BothKinds(build, optimizer=optimizer, loss="mse", strategy=strategy, **settings)
    trainer.fit((x[:14], y[:14]), batch_size=14, steps=4, verbose=False)
    for term in trainer.terms:
        count, mean = (np.asarray(tf.convert_to_tensor(v)) for v in (term.count, term.mean))
        assert count == 4
        np.testing.assert_allclose(mean, (1 - 0.5**4) * y[:14].mean(), rtol=1e-5)
