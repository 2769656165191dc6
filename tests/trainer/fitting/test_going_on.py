"""A run goes on where it stands, with its data and its callbacks, as if nothing had happened."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer import Trainer

X = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
DATA = X, X[:, :1] ** 2


def make(workdir=None, rate=0.05, **arguments):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.2), keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam(rate, **arguments)
    return Trainer(model, optimizer=optimizer, loss="mse", workdir=workdir)


def weights(trainer):
    return np.concatenate([np.ravel(v) for v in trainer.model.get_weights()])


def fit(trainer, data=DATA, **arguments):
    more = {"batch_size": 8} if isinstance(data, tuple) else {}
    return trainer.fit(data, **{**more, "verbose": False, **arguments})


def shuffled():
    return tf.data.Dataset.from_tensor_slices(DATA).shuffle(40, seed=3).batch(8)


def generated():
    counted = tf.data.Dataset.from_generator(lambda: iter(X), output_signature=tf.TensorSpec([4]))
    return counted.map(lambda x: (x, x[:1] ** 2)).batch(8)


# ---- the data ----


def again(data):
    """A function that gives the same object each time."""
    return lambda: data


GIVEN = {
    "arrays": lambda: again(DATA),
    "arrays made anew": lambda: lambda: tuple(np.array(part) for part in DATA),
    "a pipeline": lambda: again(shuffled()),
    "a pipeline made anew": lambda: shuffled,
    "a pipeline of unknown length": lambda: again(generated()),
}


@pytest.mark.parametrize("accumulated", [None, 2], ids=["", "accumulated"])
@pytest.mark.one_in(2, of="kind")
@pytest.mark.parametrize("kind", GIVEN)
def test_several_fits_are_one_fit_bit_for_bit(kind, accumulated):
    if accumulated and "anew" in kind:
        pytest.skip("as without accumulation")
    whole = make(gradient_accumulation_steps=accumulated)
    fit(whole, GIVEN[kind]()(), steps=13)
    several, data = make(gradient_accumulation_steps=accumulated), GIVEN[kind]()
    for steps in (3, 4, 9, 13):
        fit(several, data(), steps=steps)
    np.testing.assert_array_equal(weights(several), weights(whole))


def test_epochs_of_several_fits_are_those_of_one():
    whole = make()
    fit(whole, generated().shuffle(3), epochs=3)
    several, data = make(), generated().shuffle(3)
    for epochs in (1, 2, 3):
        fit(several, data, epochs=epochs)
    np.testing.assert_array_equal(weights(several), weights(whole))


OTHER = {
    "arrays of other values": lambda: (X + 1, X[:, :1]),
    "another pipeline": lambda: tf.data.Dataset.from_tensor_slices((X + 1, X[:, :1])).batch(8),
}


@pytest.mark.parametrize("kind", OTHER)
def test_other_data_start_at_their_beginning_and_the_run_says_so(kind, capsys):
    other, told = OTHER[kind](), "read from its beginning"
    trainer = make()
    fit(trainer, DATA if isinstance(other, tuple) else shuffled(), steps=3)
    assert told not in capsys.readouterr().err
    fit(trainer, other, steps=4)
    assert told in capsys.readouterr().err
    assert trainer._run.state.data.start == 3


def test_another_process_says_that_the_data_are_others(workdir, capsys):
    fit(make(workdir), steps=3)
    fit(make(workdir), (X + 1, X[:, :1]), steps=5)
    assert "data is not what it was (other values): read from" in capsys.readouterr().err
    fit(make(workdir), (X + 1 + 1e-6, X[:, :1]), steps=8, batch_size=10)
    assert "(batch_size was 8, now 10)" in capsys.readouterr().err
    fit(make(workdir), (X + 1, X[:, :1]), steps=9, batch_size=10)  # the same but for rounding
    assert capsys.readouterr().err == ""


def test_an_unseeded_pipeline_that_is_resumed_warns(workdir, capsys):
    def pipeline(seed):
        tf.random.set_seed(None)
        return tf.data.Dataset.from_tensor_slices(DATA).shuffle(40, seed=seed).batch(8)

    for steps, seed, told in ((3, None, False), (5, None, True), (7, 3, False)):
        trainer = make(workdir)
        fit(trainer, pipeline(seed), steps=steps)
        assert ("shuffle() without a seed" in capsys.readouterr().err) == told


# ---- what interrupts ----


class Fails(keras.callbacks.Callback):
    """Raises once, in one event."""

    def __init__(self, event, at, kind=RuntimeError):
        super().__init__()
        self.left, self.kind = 1, kind
        setattr(self, event, lambda place=None, logs=None: self.fail(place, at))

    def fail(self, place, at):
        if self.left and at in (place, None):
            self.left = 0
            raise self.kind("once")


def callbacks(failing=()):
    """Callbacks that have a state, and change the run."""
    reduce = keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=10.0)
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9)
    stop = keras.callbacks.EarlyStopping(patience=3, min_delta=0.5, restore_best_weights=True)
    return [reduce, schedule, *failing, stop]


CADENCES = dict(steps=60, validation_data=DATA, validate_every=4, log_every=3)
EVENTS = {
    "a step": ("on_train_batch_end", 5),
    "the last step of an epoch": ("on_train_batch_end", 7),
    "an epoch's beginning": ("on_epoch_begin", 1),
    "an epoch's end": ("on_epoch_end", 1),
    "validation": ("on_test_end", None),
    "the end": ("on_train_end", None),
}


@pytest.fixture(scope="module")
def undisturbed():
    """Weights, step and rows of the run that nothing disturbs."""
    trainer = make()
    history = fit(trainer, callbacks=callbacks(), steps_per_loop=1, **CADENCES)
    assert int(trainer.step) < 60
    return weights(trainer), int(trainer.step), values(history.rows)


def values(rows):
    times = ("time", "steps_per_second", "examples_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("event", EVENTS)
def test_the_same_call_behind_an_exception_ends_as_the_undisturbed_run(event, kind, undisturbed):
    if kind is KeyboardInterrupt and event not in ("a step", "an epoch's end"):
        pytest.skip("as an exception")
    expected, step, rows = undisturbed
    trainer, given = make(), callbacks([Fails(*EVENTS[event], kind)])
    with pytest.raises(kind):
        fit(trainer, callbacks=given, steps_per_loop=1, **CADENCES)
    history = fit(trainer, callbacks=given, steps_per_loop=1, **CADENCES)
    assert int(trainer.step) == step
    np.testing.assert_array_equal(weights(trainer), expected)
    found = values(history.rows)
    assert found == rows[len(rows) - len(found) :]


@pytest.mark.parametrize("event", ["a step", "an epoch's end"])
def test_another_process_ends_as_the_undisturbed_run(event, undisturbed, workdir):
    expected, step, rows = undisturbed
    more = dict(checkpoint_every=3, steps_per_loop=1, **CADENCES)
    with pytest.raises(RuntimeError):
        fit(make(workdir), callbacks=callbacks([Fails(*EVENTS[event])]), **more)
    trainer = make(workdir)
    history = fit(trainer, callbacks=callbacks(), **more)
    assert int(trainer.step) == step and values(history.rows) == rows
    np.testing.assert_array_equal(weights(trainer), expected)
    # what is saved is what the callback has restored, and the same call has nothing left to do
    again = make(workdir)
    assert values(fit(again, callbacks=callbacks(), **more).rows) == rows
    assert int(again.step) == step
    np.testing.assert_array_equal(weights(again), expected)


def test_a_failure_in_reading_is_read_again():
    fails = [True]

    def rows():
        for number, x in enumerate(X):
            if number == 20 and fails:
                fails.clear()
                raise OSError("gone for a moment")
            yield x

    def pipeline():
        data = tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec([4]))
        return data.map(lambda x: (x, x[:1] ** 2)).batch(8)

    def plain():  # the failed step has moved what does not depend on its batch: seeds, iterations
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        return Trainer(model, optimizer=keras.optimizers.SGD(0.05), loss="mse")

    trainer, data = plain(), pipeline()
    with pytest.raises(ValueError, match="gone for a moment"):
        fit(trainer, data, steps=13, steps_per_loop=4)
    fit(trainer, data, steps=13, steps_per_loop=4)
    whole = plain()
    fit(whole, pipeline(), steps=13)
    np.testing.assert_array_equal(weights(trainer), weights(whole))


# ---- a run that a callback has ended ----


def test_a_run_that_a_callback_has_ended_goes_on_by_another_call_alone(capsys):
    trainer = make(rate=1e-9)

    def go_on(patience=1, steps=40, **arguments):
        stop = keras.callbacks.EarlyStopping(patience=patience, min_delta=1.0)
        every = dict(steps=steps, validation_data=DATA, validate_every=4)
        fit(trainer, callbacks=[stop], **{**every, **arguments})
        return int(trainer.step)

    assert go_on() == 8
    assert go_on(verbose=True) == 8
    assert "a callback has ended this run at step 8" in capsys.readouterr().out
    assert go_on(patience=2) == 20  # begins anew: the best, and two more
    assert go_on(patience=2, steps=44) == 32
    fit(trainer, steps=44)
    assert int(trainer.step) == 44


def test_best_weights_are_what_is_saved_where_a_checkpoint_was_due_there_too(workdir):
    trainer = make(workdir, rate=0.9)
    stop = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    arguments = dict(validation_data=DATA, validate_every=4, checkpoint_every=4)
    history = fit(trainer, steps=80, callbacks=[stop], **arguments)
    best = min(row["total"] for row in history.rows if row["split"] == "eval")
    again = make(workdir)
    assert again.evaluate(DATA)["total"] == pytest.approx(best, rel=1e-6)
    assert int(again.step) == int(trainer.step) < 80


# ---- callbacks of one's own ----


class Counts(keras.callbacks.Callback):
    """Counts epochs, and keeps them where it has methods for it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1


class Keeps(Counts):
    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


class Half(Counts):
    def get_state(self):
        return self.count


class Odd(Keeps):
    def get_state(self):
        return {"model": self.model}


def interrupted(workdir, callback):
    with pytest.raises(RuntimeError):
        failing = Fails("on_epoch_begin", 3)
        every = dict(steps=20, validate_every=4, checkpoint_every=4)
        fit(make(workdir), callbacks=[callback, failing], **every)
    again = type(callback)()
    fit(make(workdir), steps=20, validate_every=4, callbacks=[again])
    return again.count


def test_a_callback_with_get_state_and_set_state_goes_on(workdir, capsys):
    assert interrupted(workdir, Keeps()) == 5
    assert capsys.readouterr().err == ""


def test_a_callback_without_them_begins_anew_and_the_run_says_so(workdir, capsys):
    assert interrupted(workdir, Counts()) == 2
    assert "Counts keeps count and has no get_state()" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("callback", "told"), [(Half, "no set_state"), (Odd, r"get_state\(\) gives .* cannot be")]
)
def test_a_state_that_cannot_be_kept_is_refused_before_training(callback, told):
    trainer = make()
    with pytest.raises(TypeError, match=told):
        fit(trainer, steps=4, callbacks=[callback()])
    assert int(trainer.step) == 0


def test_the_same_object_goes_on_in_a_further_fit_and_a_new_one_begins_anew():
    def stopped_at(further):
        trainer = make(rate=1e-9)
        first = keras.callbacks.EarlyStopping(patience=4, min_delta=1.0)
        every = dict(validation_data=DATA, validate_every=4)
        fit(trainer, steps=12, callbacks=[first], **every)
        fit(trainer, steps=80, callbacks=[further(first)], **every)
        return int(trainer.step)

    assert stopped_at(lambda first: first) == 20  # as one fit
    new = keras.callbacks.EarlyStopping(patience=4, min_delta=1.0)
    assert stopped_at(lambda first: new) == 32
