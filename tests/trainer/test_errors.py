"""Bad input gets one clear error: what, received, accepted, what to do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X[:, :1]


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0]).batch(8)


def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="out")])


def term(function):
    return [losses.term(function, name="extra")]


def anew(variable):
    def loss(y_true, y_pred):
        return tf.reduce_mean(y_pred * variable(1.0), -1)

    return loss


class Forgetful(Trainer):
    def compute_terms(self, step):
        super().compute_terms(step)


class Twice(Trainer):
    def compute_terms(self, step):
        terms = super().compute_terms(step)
        return {**terms, "regularization/net/out/kernel": tf.reduce_mean(step.y_pred)}


def regularized():
    dense = keras.layers.Dense(1, name="out", kernel_regularizer="l2")
    return keras.Sequential([keras.Input((4,)), dense], name="net")


FIT = {
    "no loss": (dict(loss=None), "There is nothing to minimise"),
    "unknown output": (dict(loss={"outt": "mse"}), "names output 'outt'.*Did you mean 'out'"),
    "unknown loss": (dict(loss="msee"), "msee"),
    "no loss at all": (dict(loss=42), "loss= holds 42"),
    "a loss that returns nothing": (dict(loss=lambda t, p: None), "Term 'loss' returned nothing"),
    "a loss that returns integers": (
        dict(loss=lambda t, p: tf.cast(p[:, 0], tf.int32)),
        "Term 'loss' returned int32",
    ),
    "a variable made anew": (dict(loss=anew(tf.Variable)), "made anew at each call of a loss"),
    "a Keras variable made anew": (dict(loss=anew(keras.Variable)), "made anew at each call"),
    "two terms of one name": (
        dict(terms=term(lambda s: s.y_pred[:, 0]) * 2),
        "Term 'extra' is defined twice",
    ),
    "a term called as an output": (
        dict(loss={"out": "mse"}, terms=[losses.term(lambda s: s.y_pred[:, 0], name="out")]),
        "Term 'out' is defined twice",
    ),
    "a term called as the model's": (
        dict(kind=Twice, model=regularized),
        "Term 'regularization/net/out/kernel' is defined twice: by the model",
    ),
    "integers": (dict(terms=term(lambda s: tf.constant(1))), "Term 'extra' returned int32"),
    "nothing": (dict(terms=term(lambda s: None)), "Term 'extra' returned nothing"),
    "a string": (dict(terms=term(lambda s: object())), "Term 'extra' returned object"),
    "one value per element": (
        dict(terms=term(lambda s: s.x)),
        r"'extra' returned shape \(None, 4\)",
    ),
    "one value per feature": (
        dict(terms=term(lambda s: tf.reduce_mean(s.x, 0))),
        r"'extra' returned shape \(4,\). Accepted: \(examples,\)",
    ),
    "something that is no term": (dict(terms=["l2"]), "terms= holds 'l2'"),
    "a weight that is not finite": (dict(loss_weights=float("nan")), "weight of term.* is nan"),
    "an infinite weight by name": (dict(loss_weights={"out": float("inf")}), "'out' is inf"),
    "a weight of a wrong kind": (
        dict(loss_weights={"out": "big"}),
        "weight of term 'out' is 'big'",
    ),
    "a weight per example": (
        dict(loss_weights=keras.Variable([1.0, 2.0])),
        r"variable of shape \(2,\)",
    ),
    "a weight of no term": (
        dict(loss_weights={"mean_squared_eror": 1.0}),
        "Did you mean 'mean_squared_error'",
    ),
    "too many weights": (dict(loss_weights=[1.0, 2.0]), "list of 2, but there are 1"),
    "sample weights of a wrong shape": (
        dict(data=dataset(X, Y, np.ones((16, 3), "float32"))),
        r"sample weights have shape \(None, 3\)",
    ),
    "no labels": (dict(data=dataset(X)), "reads its label, but the data yields no labels"),
    "two labels": (dict(data=dataset(X, Y, Y).map(lambda a, b, c: (a, (b, c)))), "tuple of 2"),
    "four parts": (dict(data=dataset(X, Y, Y, Y)), "The data yields a tuple of 4"),
    "no batches": (dict(data=dataset(X, Y).unbatch()), "the data is not batched"),
    "scalars": (dict(data=tf.data.Dataset.range(5)), "yields scalars, so it is not batched"),
    "a generator": (dict(data=(i for i in range(3))), "data is a generator"),
    "an empty dataset": (dict(data=dataset(X, Y).take(0)), "is an empty dataset"),
    "a dataset that turns out empty": (
        dict(data=dataset(X, Y).filter(lambda *_: False)),
        "the dataset is empty",
    ),
    "arrays without a batch size": (dict(data=(X, Y)), "batch_size= is needed"),
    "arrays of two lengths": (
        dict(data=(X, Y[:3]), fit=dict(batch_size=8)),
        r"data has parts of different lengths: x 16, y 3",
    ),
    "no examples": (dict(data=(X[:0], Y[:0]), fit=dict(batch_size=8)), "holds no examples"),
    "a batch of nothing": (dict(data=(X, Y), fit=dict(batch_size=0)), "batch_size=0"),
    "a dataset with a batch size": (dict(fit=dict(batch_size=8)), "brings its own batches"),
    "lists of numbers": (dict(data=([1.0, 2.0],), fit=dict(batch_size=1)), "single float32"),
    "negative steps": (dict(fit=dict(steps=-3)), "steps=-3: give a whole number"),
    "steps and epochs": (dict(fit=dict(epochs=2)), "steps= or epochs=, one of them"),
    "a cadence of 0": (dict(fit=dict(log_every=0)), "log_every=0"),
    "class weights without labels": (
        dict(loss=lambda t, p: p, data=dataset(X), fit=dict(class_weight={0: 2.0})),
        "class_weight= needs the labels of one output, received no labels",
    ),
    "compute_terms that returns nothing": (
        dict(kind=Forgetful),
        "compute_terms.. returned NoneType",
    ),
    "an unknown metric": (dict(metrics=["acuracy"]), "metrics= holds 'acuracy'"),
    "a metric of no output": (dict(metrics={"oot": "mae"}), "names output 'oot'"),
    "an unknown optimizer": (dict(optimizer="adamm"), "optimizer='adamm'"),
    "optimizers without groups": (dict(optimizer={"a": "sgd"}), "there are no groups="),
    "no such reaction": (dict(on_nonfinite="ignore"), "on_nonfinite='ignore'"),
    "no model": (dict(model=lambda: None), "was given no model. Pass model="),
    "no Keras model": (dict(model=lambda: 3), "model= gave int"),
    "frozen": (dict(model=lambda: frozen()), "No term depends on any trainable variable"),
    "an unknown layer's sums": (dict(add_loss_sums=["vae"]), "names layer 'vae', which adds no"),
}


def frozen():
    made = model()
    made.trainable = False
    return made


@pytest.mark.parametrize("name", FIT)
def test_bad_input_is_one_clear_error(name, workdir):
    case, message = FIT[name]
    kind = case.get("kind", Trainer)
    arguments = {"optimizer": "sgd", "loss": "mse", "workdir": workdir}
    arguments.update({k: v for k, v in case.items() if k not in ("kind", "data", "fit", "model")})
    with pytest.raises((ValueError, TypeError), match=message) as error:
        trainer = kind(case.get("model", model)(), **arguments)
        trainer.fit(
            case.get("data", dataset(X, Y)), **{"steps": 2, "verbose": False, **case.get("fit", {})}
        )
    if name != "a dataset that turns out empty":
        assert not workdir.exists()
    assert len(str(error.value)) < 500


def test_a_lambda_needs_a_name():
    with pytest.raises(ValueError, match="given a lambda without a name"):
        losses.term(lambda step: 0.0)


def test_an_uncompiled_model_cannot_be_taken_over():
    with pytest.raises(ValueError, match="needs a compiled model"):
        Trainer.from_compiled(model())


def test_a_workdir_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file"):
        Trainer(model(), loss="mse", workdir=tmp_path / "file")


def test_an_unbuilt_term_says_what_it_lacks():
    class Empty(losses.Term):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty has no call\(step\)"):
        Trainer(model(), loss="mse", terms=[Empty()]).build(dataset(X, Y))


def test_a_variable_that_no_term_reaches_is_named():
    x = keras.Input((4,))
    two = keras.Model(x, [keras.layers.Dense(1, name="a")(x), keras.layers.Dense(1, name="b")(x)])
    trainer = Trainer(two, optimizer="sgd", loss=["mse", None])
    with pytest.warns(UserWarning, match="No term reaches b/kernel, b/bias"):
        trainer.build(dataset(X, Y))
