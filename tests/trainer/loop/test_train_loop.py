"""The loop: one trace, any data, any cadence, the same weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer


def model():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, activation="tanh", kernel_initializer=_init(1)),
            keras.layers.Dense(1, kernel_initializer=_init(2)),
        ]
    )


def _init(seed):
    return keras.initializers.GlorotUniform(seed=seed)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(23, 5)).astype("float32")
    return x, (x[:, :1] - x[:, 1:2] ** 2).astype("float32")


class Counting(Trainer):
    """Counts how often the user's code is traced."""

    calls = 0

    def compute_terms(self, step):
        self.calls += 1
        return super().compute_terms(step)


def test_training_is_traced_once_and_evaluation_once_whatever_the_cadences(arrays):
    trainer = Counting(model(), optimizer="adam", loss="mse", metrics=["mae"])
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(8)  # ends in a short batch
    common = dict(validation_data=dataset, verbose=False)
    trainer.fit(dataset, steps=7, log_every=3, validate_every=2, steps_per_loop=2, **common)
    trainer.fit(dataset, steps=40, log_every=5, validate_every=11, **common)
    trainer.evaluate(dataset)
    trainer.fit(dataset.shuffle(9), steps=50, verbose=False)
    assert (trainer._run.programs.traces, trainer._run.evaluation.traces) == (1, 1)
    assert trainer.calls == 2  # the user's own code: once to train, once to evaluate


@pytest.mark.parametrize("steps_per_loop", [1, 3, None])
def test_the_number_of_steps_in_a_call_changes_nothing(arrays, steps_per_loop):
    def run(per_loop):
        trained = model()
        trainer = Trainer(trained, optimizer="adam", loss="mse")
        history = trainer.fit(
            arrays, steps=13, batch_size=8, log_every=5, steps_per_loop=per_loop, verbose=False
        )
        return trained.get_weights(), [row["total"] for row in history.rows]

    weights, totals = run(steps_per_loop)
    expected_weights, expected_totals = run(13)
    assert totals == expected_totals
    for mine, theirs in zip(weights, expected_weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_fit_goes_on_from_where_it_stands(arrays):
    def run(*stops):
        trained = model()
        trainer = Trainer(
            trained, optimizer=keras.optimizers.Adam(use_ema=True, ema_momentum=0.9), loss="mse"
        )
        for stop in stops:
            trainer.fit(arrays, steps=stop, batch_size=23, shuffle=False, verbose=False)
        assert int(trainer.step) == stops[-1]
        return trained.get_weights()

    for mine, theirs in zip(run(10, 20), run(20), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_evaluation_under_moving_averages_leaves_the_weights_alone(arrays):
    trained = model()
    trainer = Trainer(trained, optimizer=keras.optimizers.SGD(0.1, use_ema=True), loss="mse")
    trainer.fit(arrays, steps=5, batch_size=23, verbose=False)
    before = trained.get_weights()
    averaged = trainer.evaluate(arrays)["total"]
    for mine, theirs in zip(trained.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    direct = np.mean((trained.predict(arrays[0], verbose=0) - arrays[1]) ** 2)
    assert averaged != pytest.approx(direct, rel=1e-3)
    through_predict = np.mean((trainer.predict(arrays[0]) - arrays[1]) ** 2)
    assert averaged == pytest.approx(through_predict, rel=1e-5)


def test_arrays_are_drawn_without_replacement_anew_each_epoch():
    x = np.arange(10, dtype="float32")[:, None]
    seen = []

    class Spy(Trainer):
        def train_step(self, batch):
            tf.py_function(lambda t: seen.append(t.numpy().ravel()), [batch], [])
            return super().train_step(batch)

    constant = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    trainer = Spy(constant, optimizer="sgd", loss=lambda t, p: tf.square(p))
    trainer.fit(x, epochs=3, batch_size=4, verbose=False)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 3
    epochs = [np.concatenate(seen[i : i + 3]) for i in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize(
    "dataset, epochs, steps",
    [
        ("finite", 2, 6),
        ("unknown length", 2, 6),
        ("dropped remainder", 2, 4),
    ],
)
def test_epochs_are_passes_over_the_data(arrays, dataset, epochs, steps):
    data = tf.data.Dataset.from_tensor_slices(arrays)
    if dataset == "unknown length":
        data = data.filter(lambda x, y: True)
    data = data.batch(8, drop_remainder=dataset == "dropped remainder")
    trainer = Trainer(model(), optimizer="sgd", loss="mse")
    history = trainer.fit(data, epochs=epochs, verbose=False)
    assert int(trainer.step) == steps
    assert [row["step"] for row in history.rows] == [steps // 2, steps]


def test_an_infinite_dataset_trains_by_steps(arrays):
    data = tf.data.Dataset.from_tensor_slices(arrays).batch(8).repeat()
    trainer = Trainer(model(), optimizer="sgd", loss="mse")
    trainer.fit(data, steps=7, verbose=False)
    assert int(trainer.step) == 7
    with pytest.raises(ValueError, match=r"infinite\. Pass steps="):
        trainer.fit(data, epochs=2, verbose=False)


@pytest.mark.parametrize("batch", [1, 7, 23, 100])
def test_evaluation_does_not_depend_on_the_batches(arrays, batch):
    trainer = Trainer(
        model(),
        optimizer="sgd",
        loss=keras.losses.Huber(reduction="mean_with_sample_weight"),
        metrics=["mae"],
    )
    weight = np.random.default_rng(0).uniform(0, 2, 23).astype("float32")
    values = trainer.evaluate((*arrays, weight), batch_size=batch)
    predicted = trainer.predict(arrays[0], batch_size=batch)
    error = np.abs(predicted - arrays[1])[:, 0].astype("float64")
    huber = np.where(error < 1, 0.5 * error**2, error - 0.5)
    assert values["total"] == pytest.approx(np.sum(huber * weight) / np.sum(weight), rel=1e-6)
    assert values["metrics/mae"] == pytest.approx(np.mean(error), rel=1e-6)


def test_evaluation_takes_as_many_batches_as_asked(arrays):
    trainer = Trainer(model(), optimizer="sgd", loss="mse")
    first = trainer.evaluate((arrays[0][:8], arrays[1][:8]))["total"]
    endless = tf.data.Dataset.from_tensor_slices(arrays).batch(8).repeat()
    assert trainer.evaluate(endless, steps=1)["total"] == pytest.approx(first, rel=1e-6)
    with pytest.raises(ValueError, match="infinite"):
        trainer.evaluate(endless)


def test_xla_gives_the_same_weights(arrays):
    def run(**arguments):
        trained = model()
        Trainer(trained, optimizer="adam", loss="mse", metrics=["mae"], **arguments).fit(
            arrays, steps=6, batch_size=8, verbose=False
        )
        return trained.get_weights()

    for mine, theirs in zip(run(jit_compile=True), run(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_mixed_precision_trains():
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 5)).astype("float32")
    y = x[:, :1]
    trained = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(1, dtype=policy, kernel_initializer="zeros")]
    )
    trainer = Trainer(
        trained,
        optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.2)),
        loss="mse",
    )
    history = trainer.fit((x, y), steps=60, batch_size=64, log_every=20, verbose=False)
    totals = [row["total"] for row in history.rows if row["total"] is not None]
    assert totals[-1] < 0.05 * np.mean(y**2)


def test_a_step_with_an_infinite_gradient_is_skipped_and_counted(arrays):
    bad = arrays[1].copy()
    bad[3] = np.inf
    trained = model()
    trainer = Trainer(trained, optimizer="adam", loss="mse", on_nonfinite="skip")
    data = tf.data.Dataset.from_tensor_slices((arrays[0], bad)).batch(8)
    row = trainer.fit(data, steps=3, log_every=3, verbose=False).rows[0]
    assert row["skipped_steps"] == 1
    assert np.isfinite(row["total"])
    assert all(np.isfinite(w).all() for w in trained.get_weights())
    assert int(trainer.optimizer.iterations) == 2


@pytest.mark.parametrize("settings", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_a_step_that_is_skipped_leaves_the_moving_statistics_as_they_were(arrays, settings):
    compare_skipped(arrays, **settings)


def test_a_step_that_is_skipped_leaves_them_on_two_replicas(arrays, two_replicas):
    compare_skipped(arrays, strategy=two_replicas)


def compare_skipped(arrays, **settings):
    """A run whose second of three batches holds a NaN ends as one of the others alone."""

    def trained(batches):
        keras.utils.set_random_seed(0)

        def build():
            layers = [keras.layers.BatchNormalization(), keras.layers.Dense(1)]
            return keras.Sequential([keras.Input((5,)), *layers])

        trainer = Trainer(build, optimizer="sgd", loss="mse", on_nonfinite="skip", **settings)
        x, y = (np.concatenate([array[:8] for array in part]) for part in batches)
        trainer.fit((x, y), steps=len(x) // 8, batch_size=8, shuffle=False, verbose=False)
        return trainer.model.get_weights()

    x, y = arrays
    bad = np.where(np.arange(8)[:, None] == 3, np.nan, x[8:16]).astype(np.float32)
    mine = trained(([x, bad, x[15:]], [y, y[8:16], y[15:]]))
    for one, other in zip(mine, trained(([x, x[15:]], [y, y[15:]])), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_a_term_that_becomes_nan_stops_the_run_by_name(arrays):
    trainer = Trainer(
        model(),
        optimizer="sgd",
        loss="mse",
        loss_weights=lambda step: tf.where(step < 12, 1.0, np.nan),
    )
    with pytest.raises(FloatingPointError) as error:
        trainer.fit(arrays, steps=30, batch_size=8, log_every=10, verbose=False)
    assert "term 'mean_squared_error' became NaN between steps 11 and 13, at step 13" in str(
        error.value
    )


def test_class_weights_and_sample_weights_multiply(arrays):
    labels = (arrays[1] > 0).astype("int32")[:, 0]
    weight = np.linspace(0.5, 1.5, 23).astype("float32")
    trained = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    logits = trained.predict(arrays[0], verbose=0).astype("float64")
    trainer = Trainer(
        trained,
        optimizer="sgd",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    row = trainer.fit(
        (arrays[0], labels, weight),
        steps=1,
        batch_size=23,
        class_weight={0: 3.0},
        log_every=1,
        verbose=False,
    ).rows[0]
    nll = np.log(np.exp(logits).sum(-1)) - logits[np.arange(23), labels]
    both = weight * np.where(labels == 0, 3.0, 1.0)
    assert row["total"] == pytest.approx(np.mean(nll * both), rel=1e-5)


def test_other_class_weights_in_a_second_fit_are_honoured(arrays):
    labels = (arrays[1] > 0).astype("int32")[:, 0]
    trained = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    trainer = Trainer(
        trained,
        optimizer=keras.optimizers.SGD(0.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    common = dict(batch_size=23, log_every=1, verbose=False)
    data = arrays[0], labels
    once = trainer.fit(data, steps=1, class_weight={0: 1.0, 1: 1.0}, **common).rows[0]["total"]
    twice = trainer.fit(data, steps=2, class_weight={0: 2.0, 1: 2.0}, **common).rows[0]["total"]
    plain = trainer.fit(data, steps=3, **common).rows[0]["total"]
    assert twice == pytest.approx(2 * once, rel=1e-6)
    assert plain == pytest.approx(once, rel=1e-6)


def test_two_variables_of_one_path_are_both_trained(arrays):
    class Pair(keras.Model):
        def __init__(self):
            super().__init__(name="pair")
            self.first = keras.layers.Dense(1, name="same", kernel_initializer="ones")
            self.second = keras.layers.Dense(1, name="same", kernel_initializer="ones")

        def call(self, x):
            return self.first(x) + self.second(x)

    trained = Pair()
    Trainer(trained, optimizer="sgd", loss="mse").fit(arrays, steps=1, batch_size=23, verbose=False)
    assert trained.first.kernel.path == trained.second.kernel.path
    for layer in (trained.first, trained.second):
        assert not np.allclose(layer.kernel, 1.0)


def test_predict_keeps_the_outputs_structure_and_order(arrays):
    x = keras.Input((5,))
    two = keras.Model(x, {"a": keras.layers.Dense(2)(x), "b": keras.layers.Dense(1)(x)})
    trainer = Trainer(two, optimizer="sgd", loss={"a": "mse", "b": "mse"})
    found = trainer.predict(arrays[0], batch_size=7)
    expected = two.predict(arrays[0], verbose=0)
    for name in "ab":
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
