"""A last phase of second order in a Trainer: all data, exact, resumed; what it refuses."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import BFGS, LBFGS, GaussNewton, Phase, Reached, Sources, Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2))
Y = np.sin(X[:, :1]) * X[:, 1:]
METHODS = {"lbfgs": LBFGS(pairs=6), "bfgs": BFGS(), "gauss_newton": GaussNewton()}
FIRST, *OTHERS = ("bfgs", "lbfgs", "gauss_newton")
# one of them in every run of the tests, the others where all are asked for
EACH = [FIRST, *(pytest.param(name, marks=pytest.mark.very_slow) for name in OTHERS)]


@pytest.fixture(autouse=True)
def float64():
    before, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # another test may have set one for good
    yield
    keras.config.set_floatx(before)
    keras.config.set_dtype_policy(policy)


def line():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


def net():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(6, activation="tanh"), keras.layers.Dense(1)]
    )


def misfit(step):
    return step.y_pred - step.y


def make(model=net, terms=None, **settings):
    terms = [losses.Squares(misfit)] if terms is None else terms
    return Trainer(model, optimizer="adam", terms=terms, **settings)


def fit(trainer, method, steps=12, adam=4, data=(X, Y), **more):
    first = [Phase("adam", until=adam)] if adam else []
    phases = [*first, Phase("second", optimizer=method)]
    settings = {"batch_size": 16, "log_every": 2, "verbose": False, "phases": phases, **more}
    return trainer.fit(data, steps=steps, **settings)


def weights_of(trainer):
    return [w.copy() for w in trainer.model.get_weights()]


def test_gauss_newton_ends_at_the_least_squares_of_numpy_in_one_step():
    trainer = make(line)
    fit(trainer, GaussNewton(damping=1e-10), steps=1, adam=0)
    columns = np.column_stack([X, np.ones(60)])
    expected = np.linalg.lstsq(columns, Y[:, 0], rcond=None)[0]
    kernel, bias = trainer.model.get_weights()
    np.testing.assert_allclose([*kernel[:, 0], *bias], expected, atol=1e-8)


@pytest.mark.parametrize("name", EACH)
def test_a_row_has_the_mean_over_all_data_and_what_the_method_tells(name):
    trainer = make()
    rows = fit(trainer, METHODS[name], log_every=1).rows
    assert [row["phase"] for row in rows] == ["adam"] * 4 + ["second"] * 8
    totals = [row["total"] for row in rows[4:]]
    assert all(after < before for before, after in itertools.pairwise(totals))
    assert rows[-1]["optimizer/evaluations"] >= 1 and "learning_rate" not in rows[-1]
    assert "learning_rate" in rows[0]


def test_the_first_row_of_the_phase_is_the_mean_over_all_examples():
    trainer = make()
    fit(trainer, LBFGS(), steps=4)
    expected = np.mean(np.square(trainer.model.predict(X, verbose=0) - Y))
    row = fit(trainer, LBFGS(), steps=5, log_every=1).rows[-1]
    np.testing.assert_allclose(row["total"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", EACH)
def test_a_run_that_is_cut_off_in_the_phase_goes_on_bit_for_bit(name, tmp_path):
    whole = make()
    fit(whole, METHODS[name])

    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    cut = {"validate_every": 2, "checkpoint_every": 2}
    with pytest.raises(KeyboardInterrupt):
        fit(make(workdir=tmp_path), METHODS[name], callbacks=[Killed()], **cut)
    resumed = make(workdir=tmp_path)
    history = fit(resumed, METHODS[name], **cut)
    assert history.rows[-1]["step"] == 12
    for ours, theirs in zip(weights_of(resumed), weights_of(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_without_the_phase_reads_the_checkpoint_of_one_that_had_it(tmp_path):
    trainer = make(workdir=tmp_path)
    fit(trainer, BFGS())
    again = make(workdir=tmp_path)
    assert again.evaluate((X, Y))["total"] == trainer.evaluate((X, Y))["total"]


def test_adam_after_it_draws_the_batches_that_it_would_have_drawn():
    phases = [Phase("adam", until=4), Phase("second", until=6, optimizer=LBFGS()), Phase("end")]
    trainer = make()
    rows = trainer.fit(
        (X, Y), batch_size=16, steps=10, log_every=1, phases=phases, verbose=False
    ).rows
    assert [row["phase"] for row in rows][5:7] == ["second", "end"]
    assert "learning_rate" in rows[6] and "optimizer/evaluations" not in rows[6]
    assert rows[9]["total"] != rows[8]["total"]


def test_it_ends_by_what_is_logged_and_sees_what_callbacks_change():
    def zero(epoch, logs):
        if epoch == 2:
            trainer.model.set_weights([0 * w for w in trainer.model.get_weights()])

    trainer = make(line)
    phases = [
        Phase("second", until=Reached("total", below=10.0, rows=3), optimizer=LBFGS()),
        Phase("end"),
    ]
    rows = trainer.fit(
        (X, Y),
        batch_size=60,
        steps=6,
        log_every=1,
        validate_every=1,
        phases=phases,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=zero)],
        verbose=False,
    ).rows
    assert [row["phase"] for row in rows] == ["second"] * 3 + ["end"] * 3
    trainer = make(line)
    rows = trainer.fit(
        (X, Y),
        batch_size=60,
        steps=4,
        log_every=1,
        validate_every=1,
        phases=[Phase("second", optimizer=LBFGS())],
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=zero)],
        verbose=False,
    ).rows
    np.testing.assert_allclose(rows[3]["total"], np.mean(Y**2), rtol=1e-6)


@pytest.mark.parametrize("way", ["jit_compile", "run_eagerly"])
@pytest.mark.parametrize("name", EACH)
def test_xla_and_python_take_the_same_steps(name, way):
    expected, found = make(), make(**{way: True})
    for trainer in (expected, found):
        fit(trainer, METHODS[name], steps=4, adam=1, batch_size=60)
    for ours, theirs in zip(weights_of(found), weights_of(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def sources():
    return Sources(inside=(X,), edge=(X[:6] * 0 + 1, Y[:6] * 0 + 2))


def edge(step):
    return step.y_pred - step.y


def slope(model, points, parameters):
    return losses.derivative(model, points, 0)[:, 0] - parameters["k"]


def by_source():
    inside = losses.PDEResidual(slope, None, parameters={"k": 0.5}, source="inside")
    return [inside, losses.Squares(edge, source="edge", weight=3.0)]


@pytest.mark.parametrize("name", EACH)
def test_all_sources_and_loss_parameters_take_part(name):
    trainer = make(terms=by_source())
    sizes = {"inside": 16, "edge": 2}
    rows = fit(trainer, METHODS[name], steps=40, data=sources(), batch_size=sizes).rows
    assert rows[-1]["total"] < 1e-3
    (k,) = trainer.loss_parameters.values()
    assert float(k) != 0.5
    x = tf.constant(X)
    found = losses.derivative(trainer.model, x, 0).numpy()
    assert np.mean((found - float(k)) ** 2) < 1e-2


def test_the_squares_are_those_of_the_total():
    from trainer.second_order.objective import Total
    from trainer.second_order.vector import Vector

    trainer = make(terms=by_source())
    source = trainer._open(sources(), {"inside": 16, "edge": 2}, static=True).whole()
    run = trainer._run
    program = run.programs.step(source, False, _asked()).program
    vector = Vector.of(program)
    total = Total(program, source.first_batch(), vector)
    theta = vector.read()
    point, (residuals, jacobian) = total.at(theta), total.squares(theta)
    assert residuals.shape == (66,) and jacobian.shape == (66, vector.size)
    np.testing.assert_allclose(tf.reduce_sum(residuals**2), point.value, rtol=1e-12)
    expected = 2 * tf.linalg.matvec(jacobian, residuals, transpose_a=True)
    np.testing.assert_allclose(point.gradient, expected, rtol=1e-9, atol=1e-12)


def _asked():
    from trainer.loop.traced_step import Asked

    return Asked()


def dropout():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])


def bounded():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_constraint="non_neg")])


def accumulating():
    return keras.optimizers.Adam(gradient_accumulation_steps=2)


def scheduled():
    weight = losses.schedules.PiecewiseConstant([20], [0.5, 1.0])
    return [losses.Squares(misfit, weight=weight)]


@pytest.mark.parametrize(
    ("settings", "more", "said"),
    [
        ({"model": dropout}, {}, "seed_generator_state.*Leave out dropout"),
        ({"model": bounded}, {}, "the constraint of .*kernel"),
        ({"balancer": losses.balancing.ReLoBRaLo()}, {}, "balancer="),
        ({"gradient_diagnostics_every": 2}, {}, "gradient_diagnostics_every="),
        ({"strategy": "two"}, {}, "2 replicas"),
        ({"terms": scheduled()}, {}, "the weight of 'misfit', which is no number"),
        ({}, {"hardest": 0.5}, "hardest="),
        ({}, {"augment": lambda example, seed: example}, "is augmented"),
        ({}, {"data": tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)}, "is a pipeline"),
    ],
    ids=["dropout", "bound", "balancer", "looks", "replicas", "weight", "hard", "augment", "data"],
)
def test_what_does_not_go_with_it_is_refused_before_anything_is_trained(settings, more, said):
    if settings.get("strategy") == "two":
        settings = {"strategy": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
    if "balancer" in settings:
        settings = {**settings, "terms": [losses.Squares(misfit), losses.term(small)]}
    trainer = make(**settings)
    if "data" in more:
        more = {**more, "batch_size": None}
    with pytest.raises(ValueError, match=said):
        fit(trainer, LBFGS(), **more)
    assert trainer.step == 0


def small(step):
    return tf.reduce_sum(tf.square(step.y_pred), -1)


def test_gauss_newton_says_which_term_is_no_sum_of_squares():
    trainer = make(terms=[losses.Squares(misfit), losses.term(small)])
    with pytest.raises(ValueError, match=r"'small' is none that it knows.*losses.Squares"):
        fit(trainer, GaussNewton())


def test_a_phase_says_what_its_optimizer_may_be():
    with pytest.raises(TypeError, match=r"optimizer=3. Give a Keras optimizer or its name"):
        Phase("last", optimizer=3)
    with pytest.raises(ValueError, match="which has its own rate"):
        Phase("last", optimizer=LBFGS(), learning_rate=0.1)


@pytest.mark.parametrize("optimizer", ["lbfgs", BFGS()], ids=["name", "object"])
def test_the_trainer_says_that_it_is_a_phase(optimizer):
    with pytest.raises(ValueError, match=r"Second order over all data is a phase: fit\(phases="):
        Trainer(net, optimizer=optimizer, terms=[losses.Squares(misfit)])
