"""The Gaussian KL term: by formula in float64, free bits, capacity, where it reads, the Trainer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import GaussianKL, Step
from trainer import Trainer

RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(5, 3)).astype("float32")
LOG_VARIANCE = RNG.normal(size=(5, 3)).astype("float32")


def step_of(mean=MEAN, log_variance=LOG_VARIANCE, step=0):
    found = Step(x=tf.zeros([len(mean), 1]), model=None, step=step, training=True)
    found.y_pred = {"m": tf.constant(mean), "v": tf.constant(log_variance)}
    return found


def kl(mean=MEAN, log_variance=LOG_VARIANCE):
    m, v = np.asarray(mean, "float64"), np.asarray(log_variance, "float64")
    return 0.5 * (np.exp(v) + m**2 - 1 - v)


def value(term, step=None):
    return float(term.call(step or step_of()).value())


def test_by_hand():
    # means 1 and 3 of variance 1: 1/2 and 9/2; mean 0 of variance e: (e - 2) / 2
    assert value(GaussianKL("m", "v"), step_of([[1.0], [3.0]], [[0.0], [0.0]])) == 2.5
    expected = pytest.approx((np.e - 2) / 2)
    assert value(GaussianKL("m", "v"), step_of([[0.0]], [[1.0]])) == expected


def test_it_is_a_sum_over_latents_and_a_mean_over_examples():
    assert value(GaussianKL("m", "v")) == pytest.approx(np.mean(kl().sum(1)), rel=1e-6)
    wide = step_of(np.tile(MEAN[:, None], (1, 4, 1)), np.tile(LOG_VARIANCE[:, None], (1, 4, 1)))
    assert value(GaussianKL("m", "v"), wide) == pytest.approx(4 * np.mean(kl().sum(1)), rel=1e-6)


def test_free_bits_hold_for_each_latents_mean_over_the_batch():
    means = np.sort(kl().mean(0))
    free = float(means[:2].mean())  # one latent is below, two above
    expected = free + means[1:].sum()
    assert value(GaussianKL("m", "v", free_bits=free)) == pytest.approx(expected, rel=1e-6)


def test_a_latent_below_its_free_bits_has_no_gradient():
    step = step_of()
    lowest = np.argmin(kl().mean(0))
    free = float(np.sort(kl().mean(0))[:2].mean())
    with tf.GradientTape() as tape:
        tape.watch([step.y_pred["m"], step.y_pred["v"]])
        found = GaussianKL("m", "v", free_bits=free).call(step).value()
    of_mean, of_log_variance = tape.gradient(found, [step.y_pred["m"], step.y_pred["v"]])
    expected = MEAN / 5 * (np.arange(3) != lowest)
    np.testing.assert_allclose(of_mean, expected, rtol=1e-5)
    expected = (np.exp(LOG_VARIANCE) - 1) / 10 * (np.arange(3) != lowest)
    np.testing.assert_allclose(of_log_variance, expected, rtol=1e-4, atol=1e-7)


def test_a_capacity_pulls_the_divergence_to_itself():
    total = np.mean(kl().sum(1))
    for capacity in (0.0, 1.0, 50.0):
        found = value(GaussianKL("m", "v", capacity=capacity))
        assert found == pytest.approx(abs(total - capacity), rel=1e-5)
    ramp = losses.schedules.Linear(0.0, 50.0, 10)
    term = GaussianKL("m", "v", capacity=ramp)
    assert value(term, step_of(step=4)) == pytest.approx(abs(total - 20.0), rel=1e-5)


def test_free_bits_count_below_the_capacity():
    means = kl().mean(0)
    free = float(np.median(means))
    term = GaussianKL("m", "v", free_bits=free, capacity=50.0)
    assert value(term) == pytest.approx(50.0 - np.maximum(means, free).sum(), rel=1e-5)


@pytest.mark.parametrize("point", [0.0, 30.0, -30.0])
def test_hard_points_are_finite(point):
    for arguments in ({}, {"free_bits": 0.1, "capacity": 1.0}):
        step = step_of(np.full((2, 2), point, "float32"), np.full((2, 2), point, "float32"))
        with tf.GradientTape() as tape:
            tape.watch([step.y_pred["m"], step.y_pred["v"]])
            found = GaussianKL("m", "v", **arguments).call(step).value()
        gradients = tape.gradient(found, [step.y_pred["m"], step.y_pred["v"]])
        assert np.isfinite(found) and np.all(np.isfinite(gradients))


def test_half_precision_is_read_as_float32():
    low = step_of(MEAN.astype("float16"), np.full_like(MEAN, 12.0, "float16"))
    expected = np.mean(kl(MEAN.astype("float16"), np.full_like(MEAN, 12.0)).sum(1))
    assert value(GaussianKL("m", "v"), low) == pytest.approx(expected, rel=1e-5)


def init(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def build(outputs=("out", "m", "v")):
    x = keras.Input((4,), name="x")
    h = keras.layers.Dense(6, "tanh", kernel_initializer=init(1), name="h")(x)
    mean = keras.layers.Dense(3, kernel_initializer=init(2), name="m")(h)
    log_variance = keras.layers.Dense(3, kernel_initializer=init(3), name="v")(h)
    out = keras.layers.Dense(4, kernel_initializer=init(4), name="out")(mean)
    both = keras.layers.Concatenate(name="both")([out, log_variance])
    every = {"out": out, "m": mean, "v": log_variance, "both": both}
    return keras.Model(x, {name: every[name] for name in outputs}, name="net")


def data(n=26):
    x = np.random.default_rng(1).normal(size=(n, 4)).astype("float32")
    return x, {"out": x}


def fit(build, terms, steps=20, batch=5, strategy="one_device", x=None, **arguments):
    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.05),
        loss={"out": "mse"},
        terms=terms,
        strategy=strategy,
        **arguments,
    )
    batches = tf.data.Dataset.from_tensor_slices(data() if x is None else x).batch(batch)
    rows = trainer.fit(batches, steps=steps, log_every=1, verbose=False).rows
    return trainer, rows


def test_a_layer_or_a_function_of_the_step_is_read_as_an_output_is():
    def run(build, *places):
        return fit(build, [GaussianKL(*places)], steps=2)[1]

    rows = run(build, "m", "v")
    layers = run(lambda: build(("out", "both")), "m", "v")
    functions = run(build, lambda step: step.y_pred["m"], lambda step: step.y_pred["v"])
    for other in (layers, functions):
        key = "raw/gaussian_kl"
        assert [r[key] for r in other] == pytest.approx([r[key] for r in rows], rel=1e-6)


def test_a_layer_is_read_beside_inputs_that_only_terms_take():
    x, y = data()
    rows = fit(
        lambda: build(("out", "both")),
        [GaussianKL("m", "v")],
        steps=1,
        x=({"x": x, "other": x[:, 0]}, y),
    )[1]
    assert rows[0]["raw/gaussian_kl"] > 0


def test_evaluation_takes_free_bits_and_capacity_of_the_whole_data():
    term = GaussianKL("m", "v", free_bits=0.4, capacity=lambda step: 2.0)
    trainer = Trainer(build, loss={"out": "mse"}, terms=[term], strategy="one_device")
    x, y = data()
    out = trainer.predict(x)
    means = kl(out["m"], out["v"]).mean(0)
    expected = abs(np.maximum(means, 0.4).sum() - 2.0)
    for batch in (4, 26):
        found = trainer.evaluate((x, y), batch_size=batch)["raw/gaussian_kl"]
        assert found == pytest.approx(expected, rel=1e-5)


def test_the_ledger_and_the_compiler_agree():
    def run(**arguments):
        ramp = losses.schedules.Linear(0.0, 3.0, 10)
        term = GaussianKL("m", "v", free_bits=0.05, capacity=ramp, weight=2.0)
        return fit(build, [term], steps=4, batch=13, **arguments)[1]

    rows, compiled = run(), run(jit_compile=True)
    for mine, theirs in zip(compiled, rows, strict=True):
        assert mine["raw/gaussian_kl"] == pytest.approx(theirs["raw/gaussian_kl"], rel=1e-4)
        assert mine["terms/gaussian_kl"] == pytest.approx(2 * mine["raw/gaussian_kl"], rel=1e-6)


def test_two_replicas_give_the_ledger_and_weights_of_one(two_replicas):
    def run(strategy):
        terms = [
            GaussianKL("m", "v", free_bits=0.3, weight=0.5),
            GaussianKL("m", "v", capacity=losses.schedules.Linear(0.0, 3.0, 10), name="pulled"),
        ]
        trainer, rows = fit(build, terms, strategy=strategy)
        return rows, {v.path: np.asarray(v.value.read_value()) for v in trainer.model.weights}

    (rows, weights), (other_rows, other_weights) = run("one_device"), run(two_replicas)
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in ("total", "raw/out", "raw/gaussian_kl", "raw/pulled"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-6, abs=1e-7), key
    for path, one in weights.items():
        np.testing.assert_allclose(other_weights[path], one, rtol=5e-6, atol=5e-6)


def test_it_is_saved_by_its_arguments():
    term = GaussianKL("m", "v", 0.5, losses.schedules.Linear(0.0, 3.0, 10), weight=4.0, name="kl")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(term))
    assert again.get_config()["free_bits"] == 0.5 and again.weight == 4.0 and again.name == "kl"
    assert float(again.capacity(5)) == 1.5
    assert set(again.get_config()) == set(term.get_config())
    same = GaussianKL.from_config(GaussianKL("m", "v", capacity=2.0).get_config())
    assert value(same) == value(GaussianKL("m", "v", capacity=2.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(mean=3, log_variance="v"), r"GaussianKL\(mean=3\): give the name of an output"),
        (dict(mean="m", log_variance="v", free_bits=-1.0), r"free_bits=-1.0\).*at least 0"),
        (dict(mean="m", log_variance="v", capacity="high"), r"capacity='high'\)"),
    ],
)
def test_an_argument_outside_its_range_is_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianKL(**arguments)


def test_a_name_that_nothing_has_is_an_error():
    with pytest.raises(ValueError, match=r"reads 'n'; the outputs are 'm', 'v'"):
        GaussianKL("m", "n").call(step_of())
    with pytest.raises(ValueError, match=r"outputs and layers are 'out', .*Did you mean 'both'"):
        fit(lambda: build(("out", "both")), [GaussianKL("m", "bot")])


def test_two_shapes_are_an_error():
    with pytest.raises(ValueError, match=r"shape \(5, 3\) and a log-variance of shape \(5, 2\)"):
        GaussianKL("m", "v").call(step_of(MEAN, LOG_VARIANCE[:, :2]))
