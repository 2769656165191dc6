"""Trained parameters recover the truth; they are restored into an equal loss, and not exported."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import losses
from trainer import Trainer


def frozen(outputs=1):
    """A model that predicts 0 and learns nothing: only the loss does."""
    dense = keras.layers.Dense(
        outputs, kernel_initializer="zeros", bias_initializer="zeros", trainable=False, name="out"
    )
    return keras.Sequential([keras.Input((1,)), dense], name="net")


def fit(trainer, data, steps):
    batch = len(data[0])
    trainer.fit(data, steps=steps, batch_size=batch, log_every=steps, verbose=False)


def test_a_scalar_finds_its_minimizer():
    # d/da of mean(e^2) exp(-a) + a is 0 at a = log mean(e^2)
    y = np.random.default_rng(0).normal(size=(256, 1)).astype("float32") * 3.0
    a = losses.Parameter("a", 0.0)

    def likelihood(y_true, y_pred):
        return tf.reduce_mean((y_true - y_pred) ** 2 * tf.exp(-a.value) + a.value, axis=-1)

    trainer = Trainer(frozen(), optimizer=keras.optimizers.Adam(0.05), loss=likelihood)
    fit(trainer, (np.zeros_like(y), y), 600)
    assert float(trainer.loss_parameters["a"].value) == pytest.approx(
        np.log(np.mean(y.astype("float64") ** 2)), abs=1e-3
    )


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_constrained_scalar_stops_at_its_bound(jit_compile):
    # (a + 1)^2 is least at -1; of what is not negative, at 0
    a = losses.Parameter("a", 1.0, constraint="non_neg")
    ones = np.ones((4, 1), "float32")
    trainer = Trainer(
        frozen(),
        optimizer=keras.optimizers.SGD(0.1),
        loss=lambda y_true, y_pred: tf.reduce_mean(y_pred + (a.value + 1.0) ** 2, axis=-1),
        jit_compile=jit_compile,
    )
    fit(trainer, (ones, ones), 20)
    assert float(a.value) == 0.0


def test_uncertainty_weights_find_the_ratio_of_two_tasks_noise():
    rng = np.random.default_rng(1)
    sigma = {"first": 0.25, "second": 2.0}
    x = rng.normal(size=(4000, 3)).astype("float32")
    y = {
        task: (x @ rng.normal(size=(3, 1)) + s * rng.normal(size=(len(x), 1))).astype("float32")
        for task, s in sigma.items()
    }
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {task: keras.layers.Dense(1, name=task)(inputs) for task in sigma})
    weights = {task: losses.UncertaintyWeight() for task in sigma}
    trainer = Trainer(
        model,
        optimizer=keras.optimizers.Adam(0.03),
        loss=dict.fromkeys(sigma, "mse"),
        loss_weights=weights,
    )
    fit(trainer, (x, y), 600)
    found = {t: float(np.exp(0.5 * np.asarray(w.log_variance.value))) for t, w in weights.items()}
    assert found == pytest.approx(sigma, rel=0.05)
    assert found["second"] / found["first"] == pytest.approx(8.0, rel=0.05)
    assert set(trainer.loss_parameters) == {"first/log_variance", "second/log_variance"}


def test_student_finds_the_noise_it_is_given():
    rng = np.random.default_rng(2)
    noise = stats.t.rvs(4.0, scale=0.5, size=20000, random_state=rng).astype("float32")[:, None]
    loss = losses.StudentTNLL(df=20.0, scale=3.0, trainable=True)
    trainer = Trainer(frozen(), optimizer=keras.optimizers.Adam(0.03), loss=loss, jit_compile=True)
    fit(trainer, (np.zeros_like(noise), noise), 500)
    df, _, scale = stats.t.fit(noise, floc=0)  # what these 20000 draws say
    assert float(loss.df) == pytest.approx(df, rel=1e-2)
    assert float(loss.scale) == pytest.approx(scale, rel=1e-2)
    assert (df, scale) == pytest.approx((4.0, 0.5), rel=0.1)


# Each makes a Trainer's loss, terms and weights anew, all with parameters of their own.


def adaptive():
    return {"loss": losses.AdaptiveRobust(2, scale_init=0.5)}


def student():
    return {"loss": losses.StudentTNLL(scale=0.5, trainable=True)}


def closed_over():
    a = losses.Parameter("a", 0.5)
    return {"loss": lambda t, p: tf.reduce_mean((t - p) ** 2 * tf.exp(-a.value) + a.value, -1)}


def uncertain():
    return {"loss": "mse", "loss_weights": losses.UncertaintyWeight(init=0.5)}


def physics():
    def residual(model, x, parameters):
        return losses.derivative(model, x, 0) + parameters["k"] * model(x)

    return {"loss": "mse", "terms": [losses.PDEResidual(residual, None, parameters={"k": 0.5})]}


KINDS = {
    adaptive: {"adaptive_robust/alpha_logit", "adaptive_robust/log_scale"},
    student: {"student_tnll/log_df", "student_tnll/log_scale"},
    closed_over: {"a"},
    uncertain: {"log_variance"},
    physics: {"pde_residual/k"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind, workdir=None, seed=0):
    keras.utils.set_random_seed(seed)
    dense = keras.layers.Dense(2, name="out")
    model = keras.Sequential([keras.Input((3,)), dense], name="net")
    optimizer = keras.optimizers.Adam(0.1)
    return Trainer(model, optimizer=optimizer, workdir=workdir, **kind())


def line():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(32, 3)).astype("float32")
    return x, (x[:, :2] + rng.normal(size=(32, 2))).astype("float32")


def values(trainer):
    return {name: np.asarray(v.value) for name, v in trainer.loss_parameters.items()}


@every_kind
def test_parameters_are_restored_into_an_equal_loss(kind, workdir):
    trained = make(kind, workdir)
    trained.build(line(), batch_size=16)
    before = values(trained)
    assert set(before) == KINDS[kind]
    rows = trained.fit(line(), steps=6, batch_size=16, log_every=6, verbose=False).rows
    after = values(trained)
    for name in before:
        assert np.all(before[name] != after[name]), name
        assert rows[-1][f"loss_parameters/{name}"] == pytest.approx(after[name].mean())
    again = make(kind, workdir, seed=1)
    result = again.evaluate(line(), batch_size=16)
    assert result == pytest.approx(trained.evaluate(line(), batch_size=16), rel=1e-6)
    assert set(values(again)) == set(after)
    for name, value in values(again).items():
        np.testing.assert_array_equal(value, after[name])


@every_kind
def test_an_export_holds_no_parameter_of_a_loss(kind, tmp_path):
    trainer = make(kind)
    fit(trainer, line(), 2)
    path = trainer.export(tmp_path / "export")
    saved = tf.saved_model.load(str(path))
    assert len(saved.variables) == len(trainer.model.variables) == 2
    x = line()[0]
    np.testing.assert_allclose(saved.serve(x), trainer.predict(x), rtol=1e-6, atol=1e-6)
    alone = keras.saving.load_model(path / "model.keras")
    assert {v.name for v in alone.variables} == {"kernel", "bias"}
    assert not getattr(alone, "compiled", False)
