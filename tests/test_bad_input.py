"""A table of bad input to the API: each is one clear error, and what can be is found at once."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.objective.class_ids import class_ids
from trainer import Trainer
from trainer.errors import explain

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
Y = X[:, :1]
IDS = np.arange(16) % 3
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ARRAYS = dict(batch_size=8)


def dataset(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(8)


def model(units=1):
    return keras.Sequential(
        [keras.Input((4,), name="x"), keras.layers.Dense(units, name="out")], name="net"
    )


def classifier():
    return model(3)


def with_value(array, index, value):
    changed = array.copy()
    changed[index] = value
    return changed


class Reader(keras.Model):
    """Reads x["a"], so that data without it cannot build the model."""

    def __init__(self):
        super().__init__(name="reader")
        self.dense = keras.layers.Dense(1)

    def call(self, x):
        return self.dense(x["a"])


class Rows(keras.utils.PyDataset):
    pass


def used_optimizer():
    optimizer = keras.optimizers.Adam()
    optimizer.build(model(5).trainable_variables)
    return optimizer


def term(function, **arguments):
    return losses.term(function, name="extra", **arguments)


def output(step):
    return step.y_pred[:, 0]


# name: (arguments of Trainer, of fit, the exception, words of its message); `data` is fit's first.
CASES = {
    # the structure, shape and type of the data
    "nothing": ({}, dict(data=None), TypeError, "fit() was given no data: write fit(x, y)"),
    "a path": ({}, dict(data="rows.csv"), TypeError, "data holds a str, which is no array"),
    "a list of datasets": (
        {}, dict(data=[dataset(X, Y)], **ARRAYS), TypeError, "which is no array. Accepted: a tf"),
    "a PyDataset": (
        {}, dict(data=Rows(), **ARRAYS), TypeError, "data is a Rows. Write tf.data.Dataset.from"),
    "objects": (
        {}, dict(data=(np.array([{}] * 16), Y), **ARRAYS), TypeError, "of Python objects (dict)"),
    "lists of two lengths": (
        {}, dict(data=([[1, 2], [3]], Y[:2]), **ARRAYS), TypeError, "make lists of numbers arrays"),
    "too few features": (
        {}, dict(data=(X[:, :3], Y), **ARRAYS), ValueError,
        "x is float32 (8, 3), but the model 'net' takes float32 (None, 4)"),
    "too few features in a dataset": (
        {}, dict(data=dataset(X[:, :3], Y)), ValueError, "x is float32 (None, 3), but the model"),
    "images for vectors": (
        {}, dict(data=(X[:, :, None, None], Y), **ARRAYS), ValueError, "float32 (8, 4, 1, 1)"),
    "a dict for one input": (
        {}, dict(data=({"a": X}, Y), **ARRAYS), ValueError,
        "{'a': float32 (8, 4)}, but the mod"),
    "two inputs for one": (
        {}, dict(data=((X, X), Y), **ARRAYS), ValueError, "[float32 (8, 4), float32 (8, 4)]"),
    "strings as inputs": (
        {}, dict(data=(np.array(["a"] * 16), Y), **ARRAYS), ValueError,
        "yields strings for the mod"),
    "strings as labels": (
        {}, dict(data=(X, np.array(["a"] * 16)), **ARRAYS), TypeError,
        "labels of term 'mean_squared_error' are strings. Accepted: numbers"),
    "strings as sample weights": (
        {}, dict(data=dataset(X, Y, np.array(["a"] * 16))), TypeError, "sample weights of term"),
    "one-hot labels of a sparse loss": (
        dict(model=classifier, loss=SPARSE), dict(data=(X, np.eye(3)[IDS]), **ARRAYS), ValueError,
        "labels of shape (8, 3) with outputs of shape (8, 3). The labels look one-hot"),
    "class ids of a loss of one-hot labels": (
        dict(model=classifier, loss="categorical_crossentropy"), dict(data=(X, IDS), **ARRAYS),
        ValueError, "If the labels are class ids, use the sparse form of the loss"),
    "labels of another rank": (
        dict(model=classifier, loss="categorical_crossentropy"),
        dict(data=(X, np.zeros((16, 2, 2, 3), "float32")), **ARRAYS), ValueError,
        "cannot compare labels of shape (8, 2, 2, 3) with outputs of shape (8, 3)"),
    "a batch of True": ({}, dict(data=(X, Y), batch_size=True), ValueError,
        "batch_size=True: give"),
    "half a batch": ({}, dict(data=(X, Y), batch_size=8.5), ValueError,
        "batch_size=8.5: give a wh"),
    "NaN in an array": (
        {}, dict(data=(with_value(X, (5, 2), np.nan), Y), **ARRAYS), ValueError,
        "data: x of example 5 is nan at [2], and with it term 'mean_squared_error' is not finite"),
    "an infinite label": (
        {}, dict(data=(X, with_value(Y, (9, 0), np.inf)), **ARRAYS), ValueError,
        "data: y of example 9 is inf at [0], and with it"),
    "NaN in a sample weight": (
        {}, dict(data=(X, Y, with_value(np.ones(16, "float32"), 3, np.nan)), **ARRAYS), ValueError,
        "data: sample_weight of example 3 is nan, and"),
    "NaN in an input by name": (
        dict(model=Reader), dict(data=({"a": with_value(X, (7, 0), np.nan)}, Y), **ARRAYS),
        ValueError, "data: x['a'] of example 7 is nan at [0]"),
    # what is validated with
    "validation without an end": (
        {}, dict(validation_data=dataset(X, Y).repeat()), ValueError,
        "validation_data is an infinite dataset, and one evaluation reads all of it"),
    "no validation": (
        {}, dict(validation_data=dataset(X, Y).take(0)), ValueError, "validation_data is an empty"),
    "validation of another shape": (
        {}, dict(validation_data=(X[:, :2], Y)), ValueError,
        "x is float32 (None, 2), but the model"),
    "validation without labels": (
        {}, dict(validation_data=(X,)), ValueError,
        "reads its label, but the data yields no labels"),
    "validation with a path": ({}, dict(validation_data="held"), TypeError,
        "validation_data holds"),
    # how far
    "epochs of data without an end": (
        {}, dict(data=dataset(X, Y).repeat(), epochs=2, steps=None), ValueError, "data that ends"),
    "no epochs": ({}, dict(epochs=0, steps=None), ValueError, "epochs=0: give a whole number"),
    "neither steps nor epochs": ({}, dict(steps=None), ValueError, "needs steps= or epochs="),
    "steps in words": ({}, dict(steps="many"), ValueError, "steps='many': give a whole number"),
    "half a step": ({}, dict(steps=1.5), ValueError, "steps=1.5: give a whole number"),
    "True steps": ({}, dict(steps=True), ValueError, "steps=True: give a whole number"),
    "a negative cadence": ({}, dict(validate_every=-1), ValueError, "validate_every=-1: give"),
    "no checkpoint kept": ({}, dict(keep_last=0), ValueError, "keep_last=0: give a whole number"),
    "fewer than none kept": ({}, dict(keep_best=-1), ValueError, "keep_best=-1: give a whole"),
    "a callback that is none": ({}, dict(callbacks=["es"]), TypeError, "callbacks= holds 'es'"),
    "a callback without a list": (
        {}, dict(callbacks=keras.callbacks.TerminateOnNaN()), TypeError,
        "callbacks= is a Terminate"),
    "an unknown argument of fit": ({}, dict(step=3), TypeError, "argument 'step'"),
    "class weights in a list": ({}, dict(class_weight=[1, 2]), TypeError,
        "class_weight=[1, 2]. Gi"),
    "class weights by name": ({}, dict(class_weight={"a": 1.0}), ValueError,
        "holds 'a': 1.0. Give"),
    "class weights in words": ({}, dict(class_weight={0: "x"}), ValueError,
        "holds 0: 'x'. Give cl"),
    "a class weight of NaN": (
        {}, dict(class_weight={0: float("nan")}), ValueError, "holds 0: nan. Give class ids"),
    # what is minimised
    "one term without a list": (dict(terms=term(output)), {}, TypeError,
        "terms= is a _FunctionTerm"),
    "terms by name": (dict(terms={"a": term(output)}), {}, TypeError,
        "terms= is a dict. Give a lis"),
    "a term that trains no group": (
        dict(terms=[term(output, trains="critic")]), {}, ValueError, "trains 'critic'; the groups"),
    "a term that reads what is not there": (
        dict(terms=[term(lambda step: step.lables)]), {}, AttributeError, "no attribute 'lables'"),
    "a weight by step of two numbers": (
        dict(loss_weights=lambda step: tf.ones([2])), {}, ValueError, "has shape (2,) at a step"),
    "a weight in words": (dict(loss_weights="big"), {}, TypeError, "is 'big'. Accepted: a number"),
    "metrics in lists of lists": (
        dict(metrics=[["mae"], ["mse"]]), {}, ValueError,
        "list of lists, but the model has 1 output"),
    "a number as a metric": (dict(metrics=3), {}, TypeError, "metrics= holds 3. Accepted"),
    # the model
    "a model that cannot be built": (
        dict(model=Reader), dict(data=(X, Y), **ARRAYS), ValueError,
        "The model 'reader' could not be built from the data's x, float32 (None, 4): TypeError"),
    "a class as the model": (
        dict(model=lambda: lambda: keras.Sequential), {}, TypeError, "model= gave type"),
    # the optimizer and its groups
    "a mistyped optimizer": (dict(optimizer="adm"), {}, ValueError, "object. Did you mean 'adam'?"),
    "an optimizer's class": (
        dict(optimizer=keras.optimizers.Adam), {}, TypeError,
        "optimizer=Adam is a class. Give its"),
    "a number as optimizer": (dict(optimizer=3), {}, ValueError,
        "optimizer=3: Keras knows no such"),
    "an unknown optimizer's configuration": (
        dict(optimizer={"class_name": "Adm"}), {}, ValueError, "Keras knows no such optimizer"),
    "an optimizer built for other variables": (
        dict(optimizer=used_optimizer()), {}, ValueError, "a Adam that was built for other variab"),
    "groups in a list": (dict(groups=["a"]), {}, TypeError, "groups=['a']. Give a dict of group"),
    "a group of nothing": (
        dict(groups={"g": "nope/*"}, optimizer={"g": "sgd"}), {}, ValueError, "holds no variable"),
    "an optimizer of a mistyped group": (
        dict(groups={"gen": "*"}, optimizer={"gne": "sgd"}), {}, ValueError, "Did you mean 'gen'?"),
    "updates of no group": (
        dict(groups={"gen": "*"}, optimizer={"gen": "sgd"}, update_every=3), {}, TypeError,
        "update_every=3. Give a dict"),
    "updates of every False steps": (
        dict(groups={"gen": "*"}, optimizer={"gen": "sgd"}, update_every={"gen": False}), {},
        ValueError, "update_every={'gen': False}: give a whole number"),
    # the run
    "a strategy of another machine": (dict(strategy="tpu"), {}, ValueError,
        "TPUStrategy cannot be"),
    "a mistyped strategy": (dict(strategy="miror"), {}, ValueError, "Did you mean 'mirrored'?"),
    "a number as strategy": (dict(strategy=2), {}, ValueError, "strategy=2: accepted are 'auto'"),
    "a mistyped reaction": (dict(on_nonfinite="rais"), {}, ValueError,
        "on_nonfinite='rais': accep"),
    "other draws": (dict(replica_randomness="sam"), {}, ValueError,
        "replica_randomness='sam': acc"),
    "a seed in words": (
        dict(seed="one"), dict(data=(X, Y), **ARRAYS), ValueError,
        "seed='one': give a whole number"),
    "a configuration in a list": (dict(config=["a"]), {}, TypeError,
        "config= cannot be kept as JSON"),
    "an object in the configuration": (
        dict(config={"loss": print}), {}, TypeError,
        "config= cannot be kept as JSON: Object of type"),
    "NaN in the configuration": (
        dict(config={"rate": float("nan")}), {}, TypeError,
        "config= cannot be kept as JSON: Out of"),
    "a number as workdir": (dict(workdir=3), {}, TypeError, "workdir=3: give a folder"),
    "an unknown argument": (dict(los="mse"), {}, TypeError, "argument 'los'"),
}  # fmt: skip


def train(workdir, arguments, fit):
    given = {"model": model, "optimizer": "sgd", "loss": "mse", "workdir": workdir, **arguments}
    trainer = Trainer(given.pop("model")(), **given)
    fit = {"data": dataset(X, Y), "steps": 2, "verbose": False, **fit}
    return trainer.fit(fit.pop("data"), **fit)


def assert_clear(message):
    assert len(message) < 600
    assert len(message.splitlines()) <= 2
    for noise in ("\x1b", "Detected at node", "Traceback", "[[{{"):
        assert noise not in message


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Keras says before it fails
@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_before_anything_is_written(case, workdir):
    arguments, fit, kind, words = CASES[case]
    with pytest.raises(kind) as caught:
        train(workdir, arguments, fit)
    assert words in str(caught.value)
    assert_clear(str(caught.value))
    assert not workdir.exists()


def fails_at_17():
    yield X[:8], Y[:8]
    raise KeyError("row 17 has no label")


def changes_shape():
    yield X[:8], Y[:8]
    yield X[:8, :2], Y[:8]


def generated(function):
    spec = tf.TensorSpec([None, 4]), tf.TensorSpec([None, 1])
    return tf.data.Dataset.from_generator(function, output_signature=spec)


def used_up():
    batches = iter([(X[:8], Y[:8])] * 3)
    return generated(lambda: batches)


def undecodable(x, y):
    def decode(x):
        raise RuntimeError("cannot decode image 12")

    return tf.ensure_shape(tf.py_function(decode, [x], tf.float32), [None, 4]), y


def ragged():
    rows = tf.data.Dataset.from_generator(
        lambda: (np.zeros(4 + i // 6, "float32") for i in range(16)),
        output_signature=tf.TensorSpec([None]),
    )
    return rows.batch(8).map(lambda x: (tf.ensure_shape(x, [None, 4]), x[:, :1]))


def missing_file():
    read = tf.data.TextLineDataset("no_such_file.csv")
    return read.map(lambda line: (tf.zeros([4]), tf.zeros([1]))).batch(8)


# Found only when the batch comes: the first rows and the configuration may be on disk.
RUNNING = {
    "a class id too high": (
        dict(model=classifier, loss=SPARSE), dict(data=(X, with_value(IDS, 5, 12)), **ARRAYS),
        ValueError,
        "data: the label of example 5 is 12, but term 'sparse_categorical_crossentropy' "
        "takes class ids from 0 to 2; found were 0 to 12. TensorFlow says: Received a label value"),
    "a negative class id": (
        dict(model=classifier, loss={"out": losses.SparseFocal()}),
        dict(data=dataset(X, with_value(IDS, 13, -1))), ValueError,
        "the label of example 5 is -1, but term 'out' takes class ids from 0 to 2; found were "
        "-1 to 2 (batch 1 of the data, counted from 0)"),
    "a class id that XLA does not check": (
        dict(model=classifier, loss=SPARSE, jit_compile=True),
        dict(data=(X, with_value(IDS, 5, 12)), **ARRAYS), FloatingPointError,
        "became NaN between steps 1 and 2, at step 2. Kept: nothing, no checkpoint was written.\n"
        "data: the label of example 5 is 12"),
    "NaN in a pipeline": (
        {}, dict(data=dataset(with_value(X, (13, 2), np.nan), Y)), FloatingPointError,
        "data: x of example 5 is nan at [2] (batch 1 of the data, counted from 0)."),
    "a generator that raises": (
        {}, dict(data=generated(fails_at_17)), ValueError,
        "KeyError: 'row 17 has no label' (test_bad_input.py, line "),
    "a generator of other shapes": (
        {}, dict(data=generated(changes_shape)), ValueError,
        "TypeError: `generator` yielded an element of shape (8, 2)"),
    "a map that raises": (
        {}, dict(data=dataset(X, Y).map(undecodable)), ValueError,
        "RuntimeError: cannot decode image 12"),
    "rows of other lengths": (
        {}, dict(data=ragged()), ValueError,
        "At step 1: Cannot batch tensors with diff"),
    "a file that is not there": (
        {}, dict(data=missing_file()), ValueError,
        "At step 1: no_such_file.csv; No such"),
    "a generator that is used up": (
        {}, dict(data=used_up(), steps=5, steps_per_loop=5), ValueError,
        "data ended between steps 1 and 5 and could not be started again: its generator is used"),
    "a loss of other shapes": (
        dict(loss=lambda t, p: t @ p), {}, ValueError,
        "At step 1: Matrix size-incompatible: In[0]: [8"),
    "validation that raises": (
        {}, dict(validation_data=generated(fails_at_17)), ValueError,
        "KeyError: 'row 17 has no label'"),
    "a weight that becomes infinite": (
        dict(loss_weights=lambda step: 1 / (1 - tf.cast(step, tf.float32))), {}, FloatingPointError,
        "term 'mean_squared_error' became infinite between steps 1 and 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", RUNNING)
def test_what_a_batch_brings_is_told_with_its_cause_first(case, workdir):
    arguments, fit, kind, words = RUNNING[case]
    with pytest.raises(kind) as caught:
        train(workdir, arguments, fit)
    assert words in str(caught.value)
    assert_clear(str(caught.value))
    assert not list(workdir.glob("checkpoints/*.index"))
    assert not (workdir / "DONE.json").exists()


def test_there_are_at_least_sixty():
    assert len(CASES) + len(RUNNING) >= 60


ON_TWO_REPLICAS = """
import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from trainer import Trainer

trainer = Trainer(
    lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]),
    optimizer="sgd",
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    strategy=tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"]),
)
x, ids = np.ones((16, 4), "float32"), np.arange(16) % 3
ids[5] = 12
try:
    trainer.fit((x, ids), steps=2, batch_size=8, verbose=False)
except ValueError as error:
    print(error)
"""


def test_a_class_id_out_of_range_is_found_on_two_replicas():
    # in a process of its own: an error inside a replica ends all collectives of its process
    command = [sys.executable, "-c", ON_TWO_REPLICAS]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "the label of example 5 is 12, but term" in found.stdout, found.stderr[-2000:]


def test_a_class_that_the_loss_ignores_is_none_too_many():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    found = class_ids(loss, y=with_value(IDS, 5, -1), y_pred=np.zeros((16, 3)))
    assert [(one.classes, one.ignored) for one in found] == [(3, -1)]


def test_a_model_that_reads_nan_is_given_it(workdir):
    def filled():
        inputs = keras.Input((4,))
        clean = keras.layers.Lambda(lambda x: tf.where(tf.math.is_nan(x), 0.0, x))(inputs)
        return keras.Model(inputs, keras.layers.Dense(1, name="out")(clean))

    data = with_value(X, (5, 2), np.nan), Y
    history = train(workdir, dict(model=filled), dict(data=data, **ARRAYS))
    assert np.isfinite(history.rows[-1]["total"])


def test_nan_in_an_array_may_be_skipped(workdir):
    data = with_value(X, (5, 2), np.nan), Y
    history = train(workdir, dict(on_nonfinite="skip"), dict(data=data, **ARRAYS))
    assert history.rows[-1]["skipped_steps"] == 1


def test_a_model_of_another_strategy_is_refused(two_replicas):
    with two_replicas.scope():
        mirrored = model()
    with pytest.raises(ValueError, match="'net' was built under a strategy of several replicas"):
        Trainer(mirrored, optimizer="sgd", loss="mse", strategy="one_device")


def test_a_dataset_shorter_than_the_steps_is_repeated():
    history = train(None, {}, dict(data=dataset(X, Y).take(1), steps=5))
    assert history.rows[-1]["step"] == 5


# What TensorFlow and Keras say, in one line.


def said(function):
    with pytest.raises(Exception) as caught:
        function()
    return caught.value


@tf.function(jit_compile=True)
def uncompilable(x):
    return tf.strings.length(tf.strings.as_string(x))


def lost():
    raise tf.errors.UnavailableError(
        None,
        None,
        "Graph execution error:\n\nDetected at node while/body/CollectiveReduceV2 defined at (most "
        "recent call last):\n<stack traces unavailable>\nCollective ops is aborted by: "
        "recvmsg:Connection reset by peer\nThe error could be from a previous operation. Restart "
        "your program to reset.\n\t [[{{node while/body/CollectiveReduceV2}}]]",
    )


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (lambda: list(generated(fails_at_17)),
        "KeyError: 'row 17 has no label' (test_bad_input.py"),
        (lambda: uncompilable(tf.zeros(3)), "XLA cannot compile the operation AsString. Pass jit_"),
        (lambda: tf.function(lambda x: tf.gather(x, [7]))(tf.ones(3)), "indices[0] = 7 is not in "),
        (lambda: model()(tf.ones([2, 3])), "Input 0 with name 'None' of layer 'out' is incompatib"),
        (lambda: list(missing_file()), "no_such_file.csv; No such file or directory"),
        (lambda: lost(), "Collective ops is aborted by: recvmsg:Connection reset by peer"),
        (lambda: int("x"), "invalid literal for int()"),
    ],
)  # fmt: skip
def test_the_cause_comes_first(function, cause):
    found = explain(said(function))
    assert found.startswith(cause)
    assert_clear(found)
    assert "\n" not in found


def test_an_error_without_words_is_told_by_its_kind():
    assert explain(ValueError()) == "ValueError"


def test_a_note_of_a_term_is_kept():
    error = ValueError("no")
    error.__notes__ = ["(while computing term 'l2')"]
    assert explain(error) == "no, while computing term 'l2'"
