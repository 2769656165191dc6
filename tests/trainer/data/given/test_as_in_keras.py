"""What is given as to Keras's fit, evaluate and predict: taken as there, or told what to write."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Sources, Trainer
from trainer.data.given import split_off

X = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
Y = X[:, :1] + 1
WEIGHTS = np.arange(10, dtype="float32")


def trainer(rate=0.1):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")])
    return Trainer(model, optimizer=keras.optimizers.SGD(rate), loss="mse")


@pytest.fixture(scope="module")
def still():
    """A Trainer that is read from alone."""
    return trainer(0.0)


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(5)


def weights_after(*data, **arguments):
    one = trainer()
    one.fit(*data, steps=2, batch_size=5, shuffle=False, verbose=0, **arguments)
    return [variable.numpy() for variable in one.model.variables]


def test_fit_of_x_and_y_is_fit_of_the_two_as_data():
    as_data = weights_after((X, Y, WEIGHTS))
    for given in (
        weights_after(X, Y, sample_weight=WEIGHTS),
        weights_after(x=X, y=Y, sample_weight=WEIGHTS),
        weights_after((X, Y), sample_weight=WEIGHTS),
    ):
        for ours, theirs in zip(given, as_data, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_evaluate_and_predict_take_x_and_y_as_keras_does(still):
    error = np.square(X.sum(1, keepdims=True) - Y)[:, 0]
    assert still.evaluate(X, Y)["total"] == pytest.approx(error.mean(), rel=1e-5)
    weighted = still.evaluate(x=X, y=Y, sample_weight=WEIGHTS, verbose=0, return_dict=True)
    assert weighted["total"] == pytest.approx((error * WEIGHTS).mean(), rel=1e-5)
    np.testing.assert_allclose(still.predict(x=X, verbose=0), X.sum(1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(still.examples(X, Y)["mean_squared_error"], error, rtol=1e-5)


def test_callbacks_hear_of_an_evaluation_and_a_prediction(still):
    heard = []
    listener = keras.callbacks.LambdaCallback()
    listener.on_test_batch_end = lambda batch, logs=None: heard.append(("test", batch))
    listener.on_predict_end = lambda logs=None: heard.append(listener.model.name)
    still.evaluate(X, Y, batch_size=5, callbacks=[listener])
    still.predict(X, callbacks=[listener])
    assert heard == [("test", 0), ("test", 1), still.model.name]


def test_a_validation_split_is_the_last_share_as_in_keras():
    one = trainer(0.0)
    one.model.compile(keras.optimizers.SGD(0.0), "mse")
    seen = one.model.fit(X, Y, validation_split=0.29, batch_size=5, verbose=0).history
    rows = trainer(0.0).fit(X, Y, validation_split=0.29, batch_size=5, epochs=1, verbose=0).rows
    assert rows[-1]["total"] == pytest.approx(seen["val_loss"][0], rel=1e-5)


def test_a_split_cuts_every_part_at_one_place():
    (x, y), held_out = split_off(({"a": X, "b": X[:, 0]}, Y), 0.25)
    np.testing.assert_array_equal(x["a"], X[:7])
    np.testing.assert_array_equal(held_out[0]["b"], X[7:, 0])
    np.testing.assert_array_equal(np.concatenate([y, held_out[1]]), Y)


def test_an_epoch_may_be_given_in_steps():
    ends = []
    epochs = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(epoch))
    rows = (
        trainer()
        .fit(dataset().repeat(), epochs=2, steps_per_epoch=3, callbacks=[epochs], verbose=0)
        .rows
    )
    assert [row["step"] for row in rows] == [3, 6]
    assert ends == [0, 1]


REFUSED = {
    "a third by position": (
        lambda t: t.fit(X, Y, 8, 2),
        r"fit\(\) takes x and y, or data, by position, and was given 2 more. "
        r"Write batch_size=8, epochs=2\.",
    ),
    "labels of a pipeline": (
        lambda t: t.fit(dataset(), Y, steps=1),
        r"fit\(y=\) goes with arrays, and data is a _BatchDataset, which gives its own",
    ),
    "labels of sources": (
        lambda t: t.fit(Sources(a=(X, Y)), Y, steps=1),
        r"fit\(y=\) goes with arrays, and data is a Sources",
    ),
    "weights without labels": (
        lambda t: t.fit(X, sample_weight=WEIGHTS, steps=1),
        r"fit\(sample_weight=\) goes with x and y: write fit\(x, y, sample_weight=weights\)",
    ),
    "data twice": (lambda t: t.fit(X, x=X, steps=1), "was given data and x=: give one"),
    "no data": (lambda t: t.fit(steps=1), r"given no data: write fit\(x, y\) or fit\(data\)"),
    "a mistyped name": (
        lambda t: t.fit(X, Y, steps=1, log_evry=2),
        r"fit\(\) has no argument 'log_evry'. Did you mean log_every=\?",
    ),
    "a split of a pipeline": (
        lambda t: t.fit(dataset(), validation_split=0.2, steps=1),
        r"validation_data=dataset.take\(n\)",
    ),
    "a split that leaves nothing": (
        lambda t: t.fit(X[:1], Y[:1], validation_split=0.2, steps=1),
        "of 1 examples leaves 0 to train on and 1 to evaluate",
    ),
    "a split above 1": (
        lambda t: t.fit(X, Y, validation_split=20, steps=1),
        "validation_split=20: give a number between 0 and 1",
    ),
    "a split beside data": (
        lambda t: t.fit(X, Y, validation_split=0.2, validation_data=(X, Y), steps=1),
        "validation_split= beside validation data",
    ),
    "an epoch's steps without epochs": (
        lambda t: t.fit(X, Y, steps=4, steps_per_epoch=2, batch_size=5),
        "steps_per_epoch=2 goes with epochs=",
    ),
    "an epoch of no steps": (
        lambda t: t.fit(X, Y, epochs=1, steps_per_epoch=0, batch_size=5),
        "steps_per_epoch=0: give a whole number of at least 1",
    ),
    "a batch of no validation": (
        lambda t: t.fit(X, Y, steps=1, batch_size=5, validation_batch_size=5),
        "validation_batch_size=5 goes with validation_data=",
    ),
    "an empty batch of validation": (
        lambda t: t.fit(
            X, Y, steps=1, batch_size=5, validation_data=(X, Y), validation_batch_size=0
        ),
        "batch_size=0: give a whole number of at least 1",
    ),
    "initial_epoch": (lambda t: t.fit(X, Y, initial_epoch=2, epochs=3), "leave it out"),
    "validation_freq": (lambda t: t.fit(X, Y, validation_freq=2, epochs=3), "validate_every="),
    "validation_steps": (lambda t: t.fit(X, Y, validation_steps=2, epochs=3), "dataset.take"),
    "workers": (lambda t: t.fit(X, Y, workers=4, epochs=3), "num_parallel_calls"),
    "an order that is none": (
        lambda t: t.fit(X, Y, shuffle="batch", batch_size=5, steps=1),
        "shuffle='batch': give True or False",
    ),
    "a printed evaluation": (lambda t: t.evaluate(X, Y, verbose=2), "nothing is printed"),
    "a list of losses": (lambda t: t.evaluate(X, Y, return_dict=False), "a dict is returned"),
    "callbacks that are none": (lambda t: t.evaluate(X, Y, callbacks=[3]), "give a list of keras"),
    "callbacks of examples": (lambda t: t.examples(X, Y, callbacks=[]), "no argument 'callbacks'"),
    "a part of a prediction": (lambda t: t.predict(X, steps=1), "dataset.take"),
    "labels of a prediction": (lambda t: t.predict(X, y=Y), r"predict\(\) has no argument 'y'"),
    "weights of a prediction": (lambda t: t.predict(X, sample_weight=WEIGHTS), "'sample_weight'"),
    "a batch by position": (lambda t: t.predict(X, 32), r"by position.* Write batch_size=32\."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_as_in_keras_is_refused_with_what_to_write(case, still):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as refused:
        call(still)
    assert "\n" not in str(refused.value)


def test_what_changes_nothing_in_keras_is_taken():
    defaults = {"initial_epoch": 0, "validation_freq": 1, "validation_steps": None, "workers": 1}
    weights_after(X, Y, validation_split=0.0, steps_per_epoch=None, **defaults)


@pytest.mark.parametrize("name", ["compile", "summary", "save", "train_on_batch", "layers"])
def test_a_method_of_a_keras_model_says_what_to_write(name, still):
    assert not hasattr(still, name)
    with pytest.raises(AttributeError, match=rf"A Trainer has no {name}: .*(trainer|Trainer|fit)"):
        getattr(still, name)


def test_an_unknown_attribute_and_a_failing_property_are_told_as_they_are(still):
    class Fails(Trainer):
        @property
        def own(self):
            return self.model.nothing_of_this_name

    with pytest.raises(AttributeError, match="has no attribute 'unknown'"):
        _ = still.unknown
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = Fails(trainer().model, loss="mse").own


def test_one_look_of_validation_may_have_a_batch_of_its_own():
    sizes = []
    listener = keras.callbacks.LambdaCallback()
    listener.on_test_batch_end = lambda batch, logs=None: sizes.append(batch)
    trainer().fit(
        X,
        Y,
        steps=1,
        batch_size=5,
        validation_data=(X, Y),
        validation_batch_size=2,
        verbose=0,
        callbacks=[listener],
    )
    assert sizes == [0, 1, 2, 3, 4]
