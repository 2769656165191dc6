"""Two replicas and one give the same answer. (Several hosts, and the whole table, come later.)"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer


def build():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(
                8,
                activation="tanh",
                kernel_initializer=_init(1),
                kernel_regularizer=keras.regularizers.L2(0.01),
                activity_regularizer=keras.regularizers.L1(0.01),
                name="hidden",
            ),
            keras.layers.Dense(2, kernel_initializer=_init(2), name="out"),
        ],
        name="net",
    )


def build_masked():
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(
                9, 4, mask_zero=True, embeddings_initializer=_init(3), name="words"
            ),
            keras.layers.Dense(2, kernel_initializer=_init(2), name="out"),
        ],
        name="net",
    )


def _init(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def dense_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(97, 6)).astype("float32")
    weight = rng.uniform(0, 3, 97).astype("float32")
    return x, rng.normal(size=(97, 2)).astype("float32"), weight


def masked_data():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 9, (97, 5)).astype("int32")
    x[:40, 1:] = 0  # nearly everything valid is on the second replica
    return x, rng.normal(size=(97, 5, 2)).astype("float32")


class Root(losses.Term):
    """A square root after the global reduction."""

    def call(self, step):
        squared = tf.reduce_sum(tf.square(step.y_pred))
        count = tf.cast(tf.size(step.y_pred), tf.float32)
        return losses.Ratio(squared, count, after=tf.sqrt)


def sgd(**arguments):
    return keras.optimizers.SGD(0.05, momentum=0.9, **arguments)


CASES = {
    "sample weights": dict(),
    "the weights' mean": dict(
        loss=lambda: keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    ),
    "a sum": dict(loss=lambda: keras.losses.Huber(reduction="sum"), rate=0.001),
    "a batch-level root": dict(terms=lambda: [Root(0.3)]),
    "a scalar loss": dict(loss=lambda: lambda t, p: tf.reduce_mean(tf.abs(t - p))),
    "clipping by global norm": dict(optimizer=lambda: sgd(global_clipnorm=0.1)),
    "accumulation": dict(optimizer=lambda: sgd(gradient_accumulation_steps=2)),
    "moving averages that overwrite": dict(
        optimizer=lambda: sgd(use_ema=True, ema_overwrite_frequency=3)
    ),
    "adam": dict(optimizer=lambda: keras.optimizers.Adam(0.01)),
    "loss scaling": dict(
        optimizer=lambda: keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=1024.0)
    ),
    "a mask": dict(model=build_masked, data=masked_data),
    "a weight that learns": dict(loss_weights=losses.UncertaintyWeight),
}


def train(case, strategy, batch):
    loss = case.get("loss", lambda: "mse")()
    trainer = Trainer(
        case.get("model", build),
        optimizer=case.get("optimizer", sgd)(),
        loss=loss,
        loss_weights=case["loss_weights"]() if "loss_weights" in case else None,
        terms=case.get("terms", list)(),
        metrics=["mae"],
        strategy=strategy,
    )
    data = tf.data.Dataset.from_tensor_slices(case.get("data", dense_data)()).batch(batch)
    history = trainer.fit(data, steps=20, log_every=1, verbose=False)
    weights = {v.path: np.asarray(v.value.read_value()) for v in trainer.model.weights}
    return history.rows, weights


# of 97 examples, 33 leaves an uneven short batch of 31, and 96 a replica without examples
@pytest.mark.parametrize("name, batch", [(name, 33) for name in CASES] + [("adam", 96)])
def test_two_replicas_give_the_weights_of_one(name, batch, two_replicas):
    rows, weights = train(CASES[name], "one_device", batch)
    other_rows, other_weights = train(CASES[name], two_replicas, batch)
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in theirs:
            if key.startswith(("raw/", "total", "metrics/", "weight/", "loss_parameters/")):
                assert mine[key] == pytest.approx(theirs[key], rel=1e-6, abs=1e-7), key
    for path, value in weights.items():
        np.testing.assert_allclose(other_weights[path], value, rtol=5e-6, atol=5e-6)


def test_evaluation_and_prediction_on_two_replicas_are_exact(two_replicas):
    x, y, weight = dense_data()
    one = Trainer(build, optimizer="sgd", loss="mse", metrics=["mae"], strategy="one_device")
    two = Trainer(build, optimizer="sgd", loss="mse", metrics=["mae"], strategy=two_replicas)
    for batch in (32, 97, 96):
        expected = one.evaluate((x, y, weight), batch_size=batch)
        assert two.evaluate((x, y, weight), batch_size=batch) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(
            two.predict(x, batch_size=batch), one.predict(x, batch_size=batch), rtol=1e-5, atol=1e-6
        )


def test_a_model_built_outside_the_scope_is_an_error(two_replicas):
    with pytest.raises(ValueError, match="Pass a function that builds it"):
        Trainer(build(), optimizer="sgd", loss="mse", strategy=two_replicas)


@pytest.mark.parametrize("kind", [tf.distribute.OneDeviceStrategy])
def test_a_strategy_object_of_one_device_trains_as_none(kind):
    x, y, weight = dense_data()

    def totals(strategy):
        trainer = Trainer(build, optimizer=sgd(), loss="mse", metrics=["mae"], strategy=strategy)
        history = trainer.fit((x, y, weight), steps=5, batch_size=32, log_every=1, verbose=False)
        return [(row["total"], row["metrics/mae"]) for row in history.rows]

    assert totals(kind("cpu:0")) == totals("one_device")


def test_gradients_are_summed_in_one_batch_of_reductions(two_replicas, caplog, monkeypatch):
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    outside = losses.Parameter("outside", 1.0)
    terms = [losses.term(lambda s: tf.convert_to_tensor(outside) ** 2, name="outside")]
    trainer = Trainer(build, optimizer="sgd", loss="mse", terms=terms, strategy=two_replicas)
    trainer.build(dense_data())
    assert "Efficient batch_reduce is not supported" not in caplog.text


def test_a_trainer_inside_a_scope_is_an_error(two_replicas):
    with two_replicas.scope(), pytest.raises(RuntimeError, match="leave the scope"):
        Trainer(build, optimizer="sgd", loss="mse", strategy=two_replicas)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mirored", "Did you mean 'mirrored'"),
        ("tpu", "is refused: TPUStrategy"),
        ("parameter_server", "is refused: Keras 3 optimizers"),
        ("multi_worker", "is refused: training on several hosts"),
    ],
)
def test_a_strategy_that_cannot_be_used_says_why(name, message):
    with pytest.raises(ValueError, match=message):
        Trainer(build, optimizer="sgd", loss="mse", strategy=name)


def test_an_export_from_two_replicas_is_the_model_alone(two_replicas, tmp_path):
    trainer = Trainer(build, optimizer="sgd", loss="mse", strategy=two_replicas)
    x, y, _ = dense_data()
    trainer.fit((x, y), steps=2, batch_size=32, verbose=False)
    path = trainer.export(tmp_path / "export")
    saved = tf.saved_model.load(str(path))
    np.testing.assert_allclose(saved.serve(x), trainer.predict(x), rtol=1e-5, atol=1e-6)
