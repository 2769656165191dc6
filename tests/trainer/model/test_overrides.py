"""What a user's model overrides of Keras: taken as a term, built by forward(), refused or told."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X[:, :1]
FIT = dict(steps=3, batch_size=16, log_every=1, shuffle=False, verbose=False)


class Plain(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1, kernel_regularizer="l2")

    def call(self, x):
        return self.dense(x)


class Doubled(Plain):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight, training)


class Old(Plain):
    def compute_loss(self, x, y, y_pred, sample_weight):  # as before Keras 3.3
        return tf.reduce_mean(tf.abs(y - y_pred)) + 3.0 * tf.add_n(self.losses)


def compiled(kind):
    keras.utils.set_random_seed(1)
    model = kind()
    model.compile("sgd", "mse", loss_weights=0.5)
    return model


@pytest.mark.parametrize("kind", [Doubled, Old])
def test_an_overridden_compute_loss_is_the_objective(kind):
    model = compiled(kind)
    expected = [float(np.ravel(model.train_on_batch(X, Y))[0]) for _ in range(3)]
    rows = Trainer.from_compiled(compiled(kind)).fit((X, Y), **FIT).rows
    assert [row["raw/compute_loss"] for row in rows] == pytest.approx(expected, rel=1e-5)
    assert [key for key in rows[0] if key.startswith("terms/")] == ["terms/compute_loss"]


def test_a_compute_loss_that_cannot_be_the_objective_is_refused(two_replicas):
    with pytest.raises(ValueError, match=r"compute_loss\(\), which is its whole objective"):
        Trainer(Old(), loss="mse")
    with pytest.raises(ValueError, match="cannot be added up over 2 replicas"):
        Trainer(Old, strategy=two_replicas)


class Stepping(Plain):
    def train_step(self, data):
        return {}


class OwnTest(Plain):
    def test_step(self, data):
        return {}


class Ported(Trainer):
    def compute_terms(self, step):
        return {"square": tf.reduce_mean(tf.square(step.y_pred - step.y), -1)}


def test_a_train_step_that_would_not_run_is_refused_or_told():
    with pytest.raises(ValueError, match=r"overrides train_step\(\), which a Trainer does not"):
        Trainer(Stepping(), loss="mse")
    with pytest.warns(UserWarning, match=r"overrides train_step\(\)"):
        Ported(Stepping())
    with pytest.warns(UserWarning, match=r"overrides test_step\(\)"):
        Trainer(OwnTest(), loss="mse")
    with pytest.warns(UserWarning, match=r"compute_loss\(\).*Call it in compute_terms\(\)"):
        Ported(Old())


class Parts(keras.Model):
    """A model without call(), whose parts are not built."""

    def __init__(self):
        super().__init__()
        self.net = keras.layers.Dense(2)


class Distance(Trainer):
    def forward(self, step):
        return self.model.net(step.x[0]) - self.model.net(step.x[1])

    def compute_terms(self, step):
        return {"distance": tf.reduce_mean(tf.square(step.y_pred - 1.0), -1)}


class Called(Distance):
    def forward(self, step):
        return self.model(step.x[0]) - self.model(step.x[1])


@pytest.mark.parametrize("kind, model", [(Distance, Parts), (Called, Plain)])
def test_forward_builds_a_model_that_the_data_alone_does_not(kind, model, two_replicas):
    found = []
    for strategy in ("one_device", two_replicas):
        keras.utils.set_random_seed(1)
        trainer = kind(model, optimizer="sgd", strategy=strategy)
        rows = trainer.fit(((X, X[::-1].copy()),), **FIT).rows
        found.append([row["raw/distance"] for row in rows])
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert found[0][2] < found[0][0]


def test_a_model_without_call_says_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"a Parts, has no call\(\).*override forward\(step\)"):
        Trainer(Parts(), loss="mse").build((X, Y))
    trainer = Distance(Parts(), optimizer="sgd")
    trainer.fit(((X, X),), **FIT)
    with pytest.raises(ValueError, match=r"export\(\) writes what the model's call\(\) computes"):
        trainer.export(tmp_path / "export")
