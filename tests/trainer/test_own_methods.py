"""What a subclass of Trainer defines takes effect or is told: methods of Keras, slips, shares."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer
from trainer.model.normalization import tell_of_normalization

X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")


def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def small(step):
    return tf.square(step.y_pred[:, 0])


def fit(trainer):
    return trainer.fit((X, X[:, :1]), steps=2, batch_size=10, verbose=False)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("compute_loss", "override compute_terms"),
        ("compute_metrics", "pass metrics="),
        ("test_step", "override compute_terms"),
        ("predict_step", r"override forward"),
        ("call", r"override forward"),
        ("compile", "give its arguments to the constructor"),
    ],
)
def test_a_method_of_a_keras_model_is_refused_with_what_to_override(name, instead):
    kind = type("Own", (Trainer,), {name: lambda self, *given: None})
    with pytest.raises(ValueError, match=rf"Own defines {name}\(\), .*: {instead}"):
        kind(model, loss="mse")


@pytest.mark.parametrize("name", ["compute_term", "computeTerms", "foward", "train_setp"])
def test_a_name_a_letter_away_from_a_hooks_is_told(name):
    kind = type("Own", (Trainer,), {name: lambda self, *given: None})
    with pytest.warns(UserWarning, match=rf"Own defines {name}\(\), .* Did you mean"):
        kind(model, loss="mse")


def test_a_helper_beside_the_hook_itself_is_no_slip():
    class Own(Trainer):
        def compute_term(self, step):
            return small(step)

        def compute_terms(self, step):
            return {**super().compute_terms(step), "small": self.compute_term(step)}

    assert fit(Own(model, loss="mse")).last("train")["raw/small"] > 0


def test_a_train_step_that_returns_a_dict_of_logs_is_refused():
    class Own(Trainer):
        def train_step(self, batch):
            gradients, record = self.compute_gradients(batch)
            self.apply_gradients(gradients, record)
            return {"loss": record.raw}

    with pytest.raises(TypeError, match=r"train_step\(\) returned dict.*return record"):
        fit(Own(model, loss="mse"))


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"loss": "mse"}, "loss="),
        ({"terms": [losses.term(small)]}, "terms="),
        ({"loss": "mse", "terms": [losses.term(small)]}, "loss= and terms="),
    ],
)
def test_what_compute_terms_forgets_of_what_was_given_is_told(given, named):
    class Own(Trainer):
        def compute_terms(self, step):
            return {"own": small(step)}

    with pytest.warns(UserWarning, match=rf"{named} of the Trainer: nothing of it .* super\(\)"):
        fit(Own(model, **given))


def test_batch_normalization_by_shares_is_told_on_several_replicas_alone(two_replicas):
    layers = keras.layers
    alone = keras.Sequential([keras.Input((3,)), layers.BatchNormalization(name="norm")])
    together = keras.Sequential([keras.Input((3,)), layers.BatchNormalization(synchronized=True)])
    with pytest.warns(UserWarning, match="Layer 'norm': .* so 2 replicas train to another answer"):
        tell_of_normalization(alone, 2)
    tell_of_normalization(alone, 1)
    tell_of_normalization(together, 2)
    alone.trainable = False  # it normalizes by its moving statistics
    tell_of_normalization(alone, 2)
    with pytest.warns(UserWarning, match="Layer 'batch_normalization.*' and 1 more"):
        fit(
            Trainer(
                lambda: keras.Sequential(
                    [
                        keras.Input((3,)),
                        layers.BatchNormalization(),
                        layers.BatchNormalization(),
                        layers.Dense(1),
                    ]
                ),
                loss="mse",
                strategy=two_replicas,
            )
        )


def test_the_step_is_a_number_outside_and_a_tensor_within_on_two_replicas_too(two_replicas):
    class Own(Trainer):
        def compute_terms(self, step):
            later = tf.cast(self.step, tf.float32) * tf.ones_like(step.y_pred[:, 0])
            return {**super().compute_terms(step), "later": later}

    for strategy in ("one_device", two_replicas):
        trainer = Own(model, loss="mse", strategy=strategy)
        history = trainer.fit((X, X[:, :1]), steps=3, batch_size=10, log_every=1, verbose=False)
        assert int(trainer.step) == trainer.step.numpy() == 3 and trainer.step == 3
        assert [row["raw/later"] for row in history.rows] == [0, 1, 2]
