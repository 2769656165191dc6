"""Mean teachers in training: the averages by hand, alike in every way of running a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Sources, Trainer
from trainer.model.variables import read


def agree(step, teacher):
    return tf.reduce_sum(tf.square(step.y_pred - teacher(step.x)), axis=-1)


def teachers(decay=0.6, **more):
    return [losses.MeanTeacher(agree, decay=decay, weight=0.5, **more)]


def make_model():
    ones = keras.layers.Dense(2, kernel_initializer="ones", name="first")
    return keras.Sequential(
        [
            keras.Input((3,)),
            ones,
            # on several replicas, statistics of all examples: alike on one
            keras.layers.BatchNormalization(momentum=0.5, synchronized=True),
            keras.layers.Dense(1, kernel_initializer="ones", name="last"),
        ]
    )


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(15, 3)).astype("float32")
    return x, x[:, :1]


def plain_model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, kernel_initializer="ones")])


def make(optimizer=None, model=make_model, **arguments):
    optimizer = keras.optimizers.SGD(0.05) if optimizer is None else optimizer
    arguments = {"strategy": "one_device", "loss": "mse", "terms": teachers(), **arguments}
    return Trainer(model, optimizer=optimizer, **arguments)


def averages(trainer):
    return [read(v) for v in trainer.terms[0].averages.state.averages]


def weights(trainer):
    return [read(v) for v in trainer.model.variables]


def trained(steps=12, batch_size=6, **arguments):
    """The last row, the weights, and the averages behind them."""
    trainer = make(**arguments)
    rows = trainer.fit(
        data(), steps=steps, batch_size=batch_size, log_every=steps, shuffle=False, verbose=False
    ).rows
    return rows[-1], np.concatenate([np.ravel(v) for v in weights(trainer) + averages(trainer)])


@pytest.fixture(scope="module")
def alone():
    return trained()


def check_alike(found, alone):
    tags = ("total", "raw/agree", "raw/mean_squared_error")
    np.testing.assert_allclose([found[0][t] for t in tags], [alone[0][t] for t in tags], rtol=2e-6)
    np.testing.assert_allclose(found[1], alone[1], rtol=0, atol=5e-6)


def test_the_averages_are_those_of_numpy_after_every_step():
    """Weights and moving statistics alike; decay 0, then (1 + t) / (10 + t), at most 0.3."""
    trainer = make(terms=teachers(decay=0.3))
    expected = None
    for t in range(6):
        trainer.fit(data(), steps=t + 1, batch_size=6, verbose=False)
        decay = 0.0 if t == 0 else min(0.3, (1 + t) / (10 + t))
        now = weights(trainer)
        before = now if expected is None else expected
        expected = [decay * a + (1 - decay) * w for a, w in zip(before, now, strict=True)]
        for average, value in zip(averages(trainer), expected, strict=True):
            np.testing.assert_allclose(average, value, rtol=1e-5, atol=1e-6)
    statistics = [v.path for v in trainer.model.variables if "moving" in v.path]
    assert len(statistics) == 2


def test_the_raw_value_is_the_distance_of_the_model_and_its_averages():
    """Evaluated after 5 steps, against two models of Keras with these weights."""
    trainer = make()
    trainer.fit(data(), steps=5, batch_size=6, verbose=False)
    x, _ = data()
    teacher = make_model()
    for variable, value in zip(teacher.variables, averages(trainer), strict=True):
        variable.assign(value)
    distance = np.square(trainer.predict(x) - teacher.predict(x, verbose=0)).sum(-1).mean()
    raw = trainer.evaluate(data(), batch_size=4)["raw/agree"]
    assert raw == pytest.approx(distance, rel=1e-4) and raw > 1e-4


def test_before_the_first_update_the_teacher_is_the_model_whatever_its_weights_are():
    trainer = make().build(data(), batch_size=6)
    trainer.model.set_weights([v + 1 for v in trainer.model.get_weights()])
    assert trainer.evaluate(data(), batch_size=5)["raw/agree"] == 0.0
    np.testing.assert_array_equal(averages(trainer)[0], 0.0)


def test_the_teacher_has_no_gradient_and_is_not_trained():
    """The gradient of the term is that by the model's weights alone: of a linear model by hand."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0]])])
    term = losses.MeanTeacher(lambda s, teacher: (s.y_pred - teacher(s.x))[:, 0], "gap", decay=0.0)
    trainer = Trainer(model, optimizer=keras.optimizers.SGD(0.1), terms=[term])
    trainer.fit((np.ones((4, 1), "float32"),), steps=3, batch_size=4, verbose=False)
    assert trainer.loss_parameters == {}
    np.testing.assert_allclose(model.get_weights()[0], [[0.7]], atol=1e-6)  # each step 0.1 * x


def test_two_replicas_are_one(two_replicas, alone):
    check_alike(trained(strategy=two_replicas), alone)


@pytest.mark.very_slow
def test_two_replicas_that_xla_compiles_are_one(two_replicas):
    """Without synchronized statistics, which XLA cannot sum over replicas."""
    arguments = dict(model=plain_model, batch_size=7, steps=5)
    several = trained(strategy=two_replicas, jit_compile=True, **arguments)
    check_alike(several, trained(**arguments))


def test_xla_is_alike(alone):
    check_alike(trained(jit_compile=True), alone)


@pytest.mark.very_slow
def test_python_is_alike(alone):
    check_alike(trained(run_eagerly=True), alone)


def test_accumulated_steps_are_one_update():
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=3)
    trainer = make(optimizer, plain_model)
    trainer.fit(data(), steps=5, batch_size=5, verbose=False)
    assert int(trainer.terms[0].averages.state.updates) == 1
    np.testing.assert_array_equal(averages(trainer)[0], weights(trainer)[0])


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(workdir):
    trained(steps=5, workdir=workdir)
    _, resumed = trained(steps=12, workdir=workdir)
    _, whole = trained(steps=12)
    np.testing.assert_array_equal(resumed, whole)


def test_a_warm_start_begins_with_a_teacher_of_the_new_weights(workdir):
    first = make(model=plain_model, terms=[], workdir=workdir)
    first.fit(data(), steps=5, batch_size=6, verbose=False)
    trainer = make(keras.optimizers.SGD(0.0), plain_model, init_from=workdir)
    row = trainer.fit(data(), steps=1, batch_size=15, log_every=1, verbose=False).rows[0]
    assert row["raw/agree"] == 0.0
    np.testing.assert_array_equal(averages(trainer)[0], weights(first)[0])


def test_a_step_that_is_skipped_moves_no_teacher():
    x, y = data()
    x[4] = np.nan
    trainer = make(model=plain_model, on_nonfinite="skip")
    trainer.fit((x, y), steps=2, batch_size=5, shuffle=False, verbose=False)
    assert int(trainer.terms[0].averages.state.updates) == 1
    np.testing.assert_array_equal(averages(trainer)[0], weights(trainer)[0])


def test_within_averaged_the_model_is_the_teacher_and_afterwards_itself(tmp_path):
    trainer = make()
    trainer.fit(data(), steps=6, batch_size=6, verbose=False)
    x, before = data()[0], weights(trainer)
    with trainer.terms[0].averaged(trainer.model):
        outputs = trainer.predict(x)
        assert trainer.evaluate(data(), batch_size=5)["raw/agree"] == pytest.approx(0, abs=1e-9)
        trainer.export(tmp_path / "teacher.keras")
    for value, again in zip(before, weights(trainer), strict=True):
        np.testing.assert_array_equal(value, again)
    assert np.abs(outputs - trainer.predict(x)).max() > 1e-3
    exported = keras.models.load_model(tmp_path / "teacher.keras")
    np.testing.assert_allclose(exported.predict(x, verbose=0), outputs, atol=1e-6)


def test_a_teacher_of_a_source_beside_the_main_one():
    x, y = data()
    term = losses.MeanTeacher(agree, decay=0.5, source="unlabelled")
    trainer = make(model=plain_model, terms=[term])
    sizes = {"labelled": 6, "unlabelled": 5}
    sources = Sources(labelled=(x, y), unlabelled=(2 * x,))
    trainer.fit(sources, steps=3, batch_size=sizes, verbose=False)
    assert "agree               term, of unlabelled  1" in trainer.describe()
    assert int(trainer.terms[0].averages.state.updates) == 3


def test_a_train_step_that_moves_no_teacher_is_refused():
    class Apart(Trainer):
        def train_step(self, batch):
            _, record = self.compute_gradients(batch)
            return record

    trainer = Apart(plain_model, optimizer="sgd", loss="mse", terms=teachers())
    with pytest.raises(losses.TermwiseError, match="never moves the mean teacher 'agree'"):
        trainer.build(data(), batch_size=5)


def test_two_trainers_of_one_term_have_averages_each():
    terms = teachers()
    first, second = (make(model=plain_model, terms=terms) for _ in range(2))
    first.fit(data(), steps=2, batch_size=5, verbose=False)
    assert int(first.terms[0].averages.state.updates) == 2
    assert int(second.terms[0].averages.state.updates) == 0
