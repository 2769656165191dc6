"""Each kind of term runs unchanged, is logged under its own name, and trains what it should."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

RATE = 0.1


@pytest.fixture
def data():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 4)).astype("float32")
    y = rng.uniform(0.5, 2.0, size=(20, 1)).astype("float32")
    return x, y


def positive_model():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(1, activation="softplus", name="size")]
    )


def fit(model, data, steps=1, **arguments):
    arguments.setdefault("optimizer", keras.optimizers.SGD(RATE))
    trainer = Trainer(model, **arguments)
    history = trainer.fit(data, steps=steps, batch_size=20, log_every=1, verbose=False)
    return trainer, history.rows


def test_a_plain_function_is_called_by_its_own_name(data):
    def plain(y_true, y_pred):
        return tf.reduce_mean(tf.square(y_true - y_pred), axis=-1)

    model = positive_model()
    expected = np.mean((data[1] - model.predict(data[0], verbose=0)) ** 2)
    _, rows = fit(model, data, loss=plain)
    assert rows[0]["raw/plain"] == pytest.approx(expected, rel=1e-5)
    assert rows[0]["total"] == rows[0]["terms/plain"]


def test_a_lambda_is_called_loss(data):
    _, rows = fit(positive_model(), data, loss=lambda t, p: tf.reduce_mean((t - p) ** 2, -1))
    assert "terms/loss" in rows[0]


def test_a_closed_over_variable_follows_its_gradient_exactly(data):
    a = keras.Variable(0.7, name="a")

    def loss(y_true, y_pred):
        return tf.reduce_mean((tf.math.log(y_true) - tf.math.log(y_pred)) ** 2 + a * y_pred, -1)

    model = positive_model()
    derivative = np.mean(model.predict(data[0], verbose=0))  # dL/da
    trainer, rows = fit(model, data, loss=loss)
    assert float(a) == pytest.approx(0.7 - RATE * derivative, rel=1e-6)
    assert list(trainer.loss_parameters) == ["a"]
    assert trainer.loss_parameters["a"] is a
    assert rows[0]["loss_parameters/a"] == pytest.approx(float(a))


def test_a_plain_tf_variable_trains_as_well(data):
    b = tf.Variable(2.0, name="b")
    _, rows = fit(
        positive_model(), data, loss=lambda t, p: tf.reduce_mean((t - p) ** 2, -1) + (b - 1.0) ** 2
    )
    assert float(b) == pytest.approx(2.0 - RATE * 2.0, rel=1e-6)
    assert rows[0]["loss_parameters/b"] == pytest.approx(1.8)


def test_a_loss_that_owns_a_variable_trains_it(data):
    class Scaled(keras.losses.Loss):
        def __init__(self):
            super().__init__()
            self.log_scale = keras.Variable(0.3)

        def call(self, y_true, y_pred):
            s = tf.convert_to_tensor(self.log_scale)
            return tf.reduce_mean(tf.square(y_true - y_pred) * tf.exp(-s) + s, axis=-1)

    loss, model = Scaled(), positive_model()
    squared = np.mean((data[1] - model.predict(data[0], verbose=0)) ** 2)
    trainer, rows = fit(model, data, loss=loss)
    expected = 0.3 - RATE * (1 - squared * np.exp(-0.3))
    assert float(loss.log_scale) == pytest.approx(expected, rel=1e-5)
    assert list(trainer.loss_parameters) == ["log_scale"]
    assert "terms/scaled" in rows[0]


def test_a_layer_of_a_loss_is_trained_by_its_path(data):
    head = keras.layers.Dense(1, name="head", kernel_initializer="ones")
    before = fit(positive_model(), data, loss=lambda t, p: tf.reduce_mean((t - head(p)) ** 2, -1))
    assert set(before[0].loss_parameters) == {"head/kernel", "head/bias"}
    assert float(np.squeeze(head.kernel)) != 1.0


def test_a_layer_that_calls_add_loss_is_a_term(data):
    class Penalized(keras.layers.Layer):
        def call(self, x):
            self.add_loss(0.5 * tf.reduce_mean(tf.square(x)))
            return x

    model = keras.Sequential(
        [keras.Input((4,)), Penalized(name="inner"), keras.layers.Dense(1)], name="net"
    )
    _, rows = fit(model, data, loss="mse")
    assert rows[0]["raw/add_loss/net/inner"] == pytest.approx(0.5 * np.mean(data[0] ** 2), rel=1e-5)


def test_kernel_and_activity_regularizers_are_terms_of_their_own(data):
    dense = keras.layers.Dense(
        3,
        name="hidden",
        kernel_regularizer=keras.regularizers.L2(0.01),
        activity_regularizer=keras.regularizers.L2(0.1),
    )
    model = keras.Sequential([keras.Input((4,)), dense, keras.layers.Dense(1)], name="net")
    kernel = dense.kernel.numpy()
    hidden = data[0] @ kernel
    _, rows = fit(model, data, loss="mse")
    weight = rows[0]["raw/regularization/net/hidden/kernel"]
    assert weight == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-5)
    activity = rows[0]["raw/add_loss/net/hidden"]
    assert activity == pytest.approx(0.1 * np.sum(hidden**2) / len(hidden), rel=1e-5)


def test_losses_by_output_name(data):
    x = keras.Input((4,))
    model = keras.Model(
        x, [keras.layers.Dense(1, name="left")(x), keras.layers.Dense(1, name="right")(x)]
    )
    y = data[1]
    labelled = tf.data.Dataset.from_tensor_slices((data[0], {"left": y, "right": -y})).batch(20)
    trainer = Trainer(
        model, optimizer="sgd", loss={"left": "mse", "right": "mae"}, loss_weights={"right": 3.0}
    )
    row = trainer.fit(labelled, steps=1, log_every=1, verbose=False).rows[0]
    assert row["weight/left"] == 1.0 and row["weight/right"] == 3.0
    assert row["total"] == pytest.approx(row["raw/left"] + 3 * row["raw/right"], rel=1e-6)


def test_a_loss_inside_the_graph_needs_no_labels(data):
    x, label = keras.Input((4,), name="image"), keras.Input((1,), name="label")
    head = keras.layers.Dense(1, name="head")(x)
    error = keras.layers.Lambda(lambda t: tf.square(t[0] - t[1]), name="yolo_loss")([head, label])
    model = keras.Model([x, label], error)
    values = {"image": data[0], "label": data[1]}
    expected = np.mean(model.predict([data[0], data[1]], verbose=0))
    trainer, rows = fit(model, values, loss={"yolo_loss": lambda y_true, y_pred: y_pred})
    assert rows[0]["raw/yolo_loss"] == pytest.approx(expected, rel=1e-5)
    second = trainer.fit(values, steps=30, batch_size=20, log_every=1, verbose=False).rows[-1]
    assert second["total"] < 0.5 * rows[0]["total"]


def test_extra_inputs_that_only_a_term_reads_are_not_exported(data, tmp_path):
    x, label = keras.Input((4,), name="image"), keras.Input((1,), name="label")
    weight = keras.Input((1,), name="weight")
    output = keras.layers.Dense(1, name="head")(x)
    model = keras.Model([x, label, weight], output)

    def weighted(step):
        error = tf.square(step.x["label"] - step.y_pred) * step.x["weight"]
        return tf.reduce_mean(error, axis=-1)

    rng = np.random.default_rng(0)
    values = {
        "image": data[0],
        "label": data[1],
        "weight": rng.uniform(0, 2, (20, 1)).astype("float32"),
    }
    predicted = model.predict([values["image"], data[1], values["weight"]], verbose=0)
    expected = np.mean((data[1] - predicted) ** 2 * values["weight"])
    trainer, rows = fit(model, values, terms=[losses.term(weighted)])
    assert rows[0]["raw/weighted"] == pytest.approx(expected, rel=1e-5)

    path = trainer.export(tmp_path / "export")
    saved = tf.saved_model.load(str(path))
    np.testing.assert_allclose(saved.serve(data[0]), trainer.predict(values), rtol=1e-5)
    loaded = keras.models.load_model(path / "model.keras")
    assert [tensor.name for tensor in loaded.inputs] == ["image"]


def test_a_function_of_the_step_weighs_a_term(data):
    trainer = Trainer(
        positive_model(),
        optimizer="sgd",
        loss="mse",
        loss_weights={"mean_squared_error": lambda step: 1.0 + tf.cast(step, tf.float32)},
    )
    history = trainer.fit(data, steps=4, batch_size=20, log_every=1, verbose=False)
    assert [row["weight/mean_squared_error"] for row in history.rows] == [1.0, 2.0, 3.0, 4.0]


def test_a_window_shows_the_weight_that_makes_its_row_add_up(data):
    trainer = Trainer(
        positive_model(),
        optimizer="sgd",
        loss="mse",
        loss_weights=keras.optimizers.schedules.PolynomialDecay(0.0, 8, 1.0),
    )
    row = trainer.fit(data, steps=8, batch_size=20, log_every=8, verbose=False).rows[0]
    product = row["weight/mean_squared_error"] * row["raw/mean_squared_error"]
    assert 0.3 < row["weight/mean_squared_error"] < 0.5
    assert row["total"] == pytest.approx(product, rel=1e-9)


def test_an_uncertainty_weight_learns_and_its_penalty_is_a_term(data):
    trainer, rows = fit(
        positive_model(), data, loss="mse", loss_weights=losses.UncertaintyWeight(init=1.0)
    )
    raw = rows[0]["raw/mean_squared_error"]
    assert rows[0]["weight/mean_squared_error"] == pytest.approx(0.5 * np.exp(-1.0), rel=1e-6)
    assert rows[0]["raw/uncertainty/mean_squared_error"] == pytest.approx(0.5)
    gradient = 0.5 - 0.5 * np.exp(-1.0) * raw
    (s,) = trainer.loss_parameters.values()
    assert float(s) == pytest.approx(1.0 - RATE * gradient, rel=1e-5)


def test_a_maximized_parameter_climbs(data):
    weight = losses.Parameter("adaptive", 1.0, maximize=True)
    _, rows = fit(positive_model(), data, loss="mse", loss_weights=weight)
    expected = 1.0 + RATE * rows[0]["raw/mean_squared_error"]
    assert float(weight) == pytest.approx(expected, rel=1e-6)


def test_a_constraint_holds_after_every_update(data):
    a = losses.Parameter("a", 0.01, constraint="non_neg")
    fit(
        positive_model(),
        data,
        steps=3,
        loss=lambda t, p: tf.reduce_mean((t - p) ** 2, -1) + tf.convert_to_tensor(a),
    )
    assert float(a) == 0.0


def test_weight_decay_leaves_loss_parameters_alone(data):
    a = losses.Parameter("a", 1.0)
    model = positive_model()
    kernel = model.layers[0].kernel.numpy()
    fit(
        model,
        data,
        optimizer=keras.optimizers.SGD(RATE, weight_decay=0.5),
        loss=lambda t, p: 0.0 * tf.reduce_mean(p, -1) + 0.0 * tf.convert_to_tensor(a),
    )
    assert float(a) == 1.0
    np.testing.assert_allclose(model.layers[0].kernel, kernel * (1 - RATE * 0.5), rtol=1e-6)


def test_loss_parameters_may_have_their_own_optimizer(data):
    a = losses.Parameter("a", 1.0)
    _, rows = fit(
        positive_model(),
        data,
        loss=lambda t, p: tf.reduce_mean((t - p) ** 2, -1) + tf.convert_to_tensor(a) ** 2,
        loss_parameter_optimizer=keras.optimizers.SGD(0.01),
    )
    assert float(a) == pytest.approx(1.0 - 0.01 * 2.0, rel=1e-6)
    assert rows[0]["learning_rate/loss_parameters"] == pytest.approx(0.01)


def test_a_subclass_adds_a_term_in_five_lines(data):
    class Shy(Trainer):
        def compute_terms(self, step):
            terms = super().compute_terms(step)
            terms["size"] = tf.reduce_mean(tf.square(step.y_pred), axis=-1)
            return terms

    model = positive_model()
    expected = np.mean(model.predict(data[0], verbose=0) ** 2)
    trainer = Shy(model, optimizer="sgd", loss="mse", loss_weights={"size": 0.5})
    row = trainer.fit(data, steps=1, batch_size=20, verbose=False, log_every=1).rows[0]
    assert row["raw/size"] == pytest.approx(expected, rel=1e-5)
    assert row["weight/size"] == 0.5
    assert "size                subclass  0.5" in trainer.describe()


def test_a_second_call_of_the_model_neither_loses_nor_doubles_its_losses(data):
    def twice(step):
        return tf.reduce_mean(step.model(step.x + 1.0, training=True), axis=-1)

    def run(terms):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3, activity_regularizer="l2", kernel_initializer="ones"),
                keras.layers.Dense(1, kernel_initializer="ones"),
            ],
            name="net",
        )
        _, rows = fit(model, data, loss="mse", terms=terms)
        return {key: value for key, value in rows[0].items() if "raw/add_loss" in key}

    once = run([])
    assert len(once) == 1
    again = run([losses.term(twice, weight=0.0)])
    assert list(once.values()) == pytest.approx(list(again.values()))


def test_a_compiled_model_moves_over(data):
    model = positive_model()
    model.compile(
        optimizer=keras.optimizers.SGD(0.25), loss="mse", loss_weights=[2.0], metrics=["mae"]
    )
    trainer = Trainer.from_compiled(model)
    row = trainer.fit(data, steps=1, batch_size=20, verbose=False, log_every=1).rows[0]
    assert row["weight/mean_squared_error"] == 2.0
    assert row["learning_rate"] == pytest.approx(0.25)
    assert "metrics/mae" in row
