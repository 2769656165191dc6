"""Balancers in the step: the ledger adds up, the direction is the paper's, replicas agree."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import balancing
from trainer import Sources, Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(97, 6)).astype("float32")
A = RNG.normal(size=(97, 2)).astype("float32")
Y = {"a": A, "b": (RNG.normal(size=(97, 2)) - 4 * A).astype("float32")}  # they pull apart
ALL = [name for name in balancing.__all__ if name not in ("Balancer", "NTK")]
ALL = [name for name in ALL if not name.endswith("Balancer")]


def _init(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def build():
    inputs = keras.Input((6,))
    trunk = keras.layers.Dense(
        8, activation="tanh", name="trunk", kernel_initializer=_init(1), kernel_regularizer="l2"
    )(inputs)
    heads = {n: keras.layers.Dense(2, name=n, kernel_initializer=_init(2)) for n in ("a", "b")}
    return keras.Model(inputs, {n: head(trunk) for n, head in heads.items()}, name="net")


def train(balancer, strategy="one_device", steps=5, batch=33, optimizer=None, fit=(), **arguments):
    keras.utils.set_random_seed(0)
    trainer = Trainer(
        build,
        optimizer=optimizer or keras.optimizers.SGD(0.02),
        loss={"a": "mse", "b": "mse"},
        loss_weights={"a": 2.0},
        balancer=balancer,
        strategy=strategy,
        **arguments,
    )
    history = trainer.fit(
        (X, Y), batch_size=batch, steps=steps, log_every=1, verbose=False, **dict(fit)
    )
    weights = {v.path: np.asarray(tf.convert_to_tensor(v)) for v in trainer.model.weights}
    return trainer, history.rows, weights


def largest_difference(one, other):
    return max(float(np.abs(one[path] - other[path]).max()) for path in one)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", [*ALL, "NTK"])
def test_every_balancer_trains_and_its_ledger_adds_up(name):
    trainer, rows, _ = train(getattr(balancing, name)(), steps=3)
    for row in rows:
        total = sum(row["weight/" + k[4:]] * v for k, v in row.items() if k.startswith("raw/"))
        assert row["total"] == pytest.approx(total, rel=1e-6)
        assert np.isfinite(row["total"])
        assert row["weight/regularization/trunk/kernel"] == 1.0
    if name != "NTK":  # whose weights are for the steps that follow
        evaluated = trainer.evaluate((X, Y))["weight/a"]
        assert evaluated == pytest.approx(rows[-1]["weight/a"], rel=1e-5)


TWO = [
    balancing.PCGrad,
    balancing.GradDrop,
    balancing.GradNorm,
    balancing.LearningRateAnnealing,
    balancing.DWA,
    balancing.Uncertainty,
    balancing.NTK,
    lambda: balancing.UPGrad(at="trunk"),
    lambda: balancing.MGDA(every=2),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("make", TWO, ids=lambda make: repr(make()))
def test_two_replicas_balance_as_one(make, two_replicas):
    _, rows, one = train(make())
    _, other_rows, two = train(make(), two_replicas)
    assert largest_difference(one, two) < 1e-5
    for mine, theirs in zip(other_rows, rows, strict=True):
        for key in ("total", "raw/a", "weight/a", "weight/b"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-5), key


@pytest.mark.one_in(3)
@pytest.mark.parametrize("make", [TWO[0], *TWO[-2:]], ids=lambda make: repr(make()))
def test_a_balanced_step_compiles(make):
    _, _, one = train(make())
    _, _, compiled = train(make(), jit_compile=True)
    assert largest_difference(one, compiled) < 1e-5


def gradients_of_terms():
    """The gradients of 2 * a and of b on the whole data, by the plain tape: path -> rows."""
    model = build()
    found = []
    for name, weight in (("a", 2.0), ("b", 1.0)):
        with tf.GradientTape() as tape:
            value = weight * tf.reduce_mean((model(X)[name] - Y[name]) ** 2)
        found.append(tape.gradient(value, [v.value for v in model.trainable_variables]))
    paths = [v.path for v in model.trainable_variables]
    return model, {
        p: [None if g[i] is None else g[i].numpy() for g in found] for i, p in enumerate(paths)
    }


@pytest.mark.parametrize("at", [None, "trunk/*"])
def test_the_shared_variables_take_the_direction_and_the_others_their_gradient(at):
    model, rows = gradients_of_terms()
    shared = ["trunk/kernel", "trunk/bias"]
    jacobian = np.stack(
        [np.concatenate([rows[f"{p}"][i].ravel() for p in shared]) for i in range(2)]
    )
    assert jacobian[0] @ jacobian[1] < 0  # they conflict
    direction = balancing.PCGrad().direction(jacobian.astype("float64")).numpy()
    _, _, found = train(
        balancing.PCGrad(at=at), steps=1, batch=97, optimizer=keras.optimizers.SGD(1.0)
    )
    kernel = model.get_layer("trunk").kernel.numpy()
    expected = kernel - direction[: kernel.size].reshape(kernel.shape) - 0.02 * kernel  # L2 0.01
    np.testing.assert_allclose(found["trunk/kernel"], expected, rtol=1e-5, atol=1e-6)
    head = model.get_layer("a").kernel.numpy() - rows["a/kernel"][0]
    np.testing.assert_allclose(found["a/kernel"], head, rtol=1e-5, atol=1e-6)


def test_gradients_of_a_layers_output_decide_for_what_comes_before_it():
    model = build()
    outputs = model.get_layer("trunk")(X)
    grams = []
    for name, weight in (("a", 2.0), ("b", 1.0)):
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            value = weight * tf.reduce_mean((model.get_layer(name)(outputs) - Y[name]) ** 2)
        grams.append(tape.gradient(value, outputs).numpy().ravel().astype("float64"))
    rows = np.stack(grams)
    factors = balancing.MGDA().weights(rows @ rows.T).numpy()
    _, ledger, _ = train(balancing.MGDA(at="trunk"), steps=1, batch=97)
    assert ledger[0]["weight/a"] == pytest.approx(2.0 * factors[0], rel=1e-4)
    assert ledger[0]["weight/b"] == pytest.approx(factors[1], rel=1e-4)


def test_a_balancer_that_pauses_keeps_its_weights():
    _, rows, _ = train(balancing.MGDA(every=3), steps=6)
    weights = [row["weight/b"] for row in rows]
    assert weights[0] == weights[1] == weights[2] != weights[3] == weights[5]


def test_accumulated_rows_are_balanced_as_one_batch():
    def run(batch, steps, **accumulation):
        optimizer = keras.optimizers.SGD(0.05, **accumulation)
        fit = {"shuffle": False}
        return train(balancing.MGDA(), batch=batch, steps=steps, optimizer=optimizer, fit=fit)[2]

    whole = run(97, 2)
    # 97 examples as 40, 40 and 17
    accumulated = run(40, 6, gradient_accumulation_steps=3)
    assert largest_difference(whole, accumulated) < 1e-5


def test_a_loss_scale_changes_nothing():
    def scaled():
        inner = keras.optimizers.SGD(0.02)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**12)

    _, _, plain = train(balancing.MGDA())
    _, _, found = train(balancing.MGDA(), optimizer=scaled())
    assert largest_difference(plain, found) < 1e-6


@pytest.mark.one_in(3)
@pytest.mark.parametrize("make", [balancing.GradVac, balancing.FAMO, balancing.Uncertainty])
def test_the_state_is_saved(make, tmp_path):
    whole = train(make(), steps=6)
    train(make(), steps=3, workdir=tmp_path / "run")
    resumed = train(make(), steps=6, workdir=tmp_path / "run")
    assert largest_difference(whole[2], resumed[2]) == 0.0
    assert resumed[1][-1]["weight/a"] == whole[1][-1]["weight/a"]


def test_trained_weights_are_loss_parameters_with_terms_of_their_own():
    trainer, rows, _ = train(balancing.Uncertainty())
    assert list(trainer.loss_parameters) == ["log_variance"]
    assert trainer.loss_parameters["log_variance"].shape == (2,)
    assert "terms/uncertainty/a" in rows[-1] and "terms/uncertainty/b" in rows[-1]
    assert "2 * Uncertainty" in trainer.describe()


def test_terms_that_are_not_named_keep_their_weights():
    three = losses.term(lambda s: tf.reduce_sum(s.y_pred["a"] ** 2, -1), name="three", weight=0.5)
    _, rows, _ = train(balancing.RandomWeights(terms=["a", "b"]), terms=[three])
    assert {row["weight/three"] for row in rows} == {0.5}
    assert len({row["weight/a"] for row in rows}) > 1


@pytest.mark.parametrize(
    "balancer, message",
    [
        ("PCGrad", "give an object of losses.balancing"),
        (balancing.PCGrad(terms=["c"]), "terms= names 'c'; the terms are 'a', 'b'"),
        (balancing.PCGrad(at="nothing/*"), "names no variable that at least two"),
        (balancing.GradDrop(at="trunk"), "not a layer"),
        (balancing.UPGrad(preference=[1.0, 2.0, 3.0]), "there are 2 terms"),
    ],
)
def test_what_cannot_be_balanced_says_why(balancer, message):
    with pytest.raises((TypeError, ValueError), match=message):
        train(balancer)


def test_diagnostics_are_those_of_the_plain_tape(tmp_path):
    _, rows = gradients_of_terms()
    zeros = {path: 0.0 * next(g for g in pair if g is not None) for path, pair in rows.items()}
    flat = []
    for i in range(2):
        parts = [zeros[p] if pair[i] is None else pair[i] for p, pair in rows.items()]
        flat.append(np.concatenate([part.ravel() for part in parts]).astype("float64"))
    _, ledger, _ = train(
        None, steps=4, batch=97, gradient_diagnostics_every=1, workdir=tmp_path / "run"
    )
    first = ledger[0]
    assert first["grad_norm/a"] == pytest.approx(np.linalg.norm(flat[0]), rel=1e-4)
    assert first["grad_norm/b"] == pytest.approx(np.linalg.norm(flat[1]), rel=1e-4)
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert first["grad_cosine/a:b"] == pytest.approx(cosine, rel=1e-4)
    assert sum(v for k, v in first.items() if k.startswith("update_share/")) == pytest.approx(1.0)
    assert not [key for key in first if key.startswith("grad_cosine/regularization")]
    assert b"gradient cosines" in b"".join(
        p.read_bytes() for p in (tmp_path / "run/tb/train").iterdir()
    )


def test_diagnostics_come_only_on_their_steps_and_change_nothing(two_replicas):
    _, _, weights = train(None, steps=6)
    for strategy in ("one_device", two_replicas):
        _, rows, measured = train(None, strategy, steps=6, gradient_diagnostics_every=3)
        assert [row["step"] for row in rows if "grad_norm/a" in row] == [3, 6]
        assert largest_difference(weights, measured) < (1e-6 if strategy is two_replicas else 1e-12)
        if strategy == "one_device":
            one = rows[2]
        else:
            assert rows[2]["grad_cosine/a:b"] == pytest.approx(one["grad_cosine/a:b"], rel=1e-4)


@pytest.mark.parametrize("points", [[[3.0]], lambda step: tf.constant([[3.0]])])
def test_ntk_weighs_an_equation_by_its_own_points_on_any_number_of_replicas(points, two_replicas):
    """Of the residuals 3 w and 2 w the traces are 9 and 4; one replica of the two is empty."""
    for strategy in ("one_device", two_replicas):
        equation = losses.PDEResidual(lambda model, x, _: model(x), points=points, name="equation")
        trainer = Trainer(
            lambda: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]),
            optimizer=keras.optimizers.SGD(0.0),
            loss="mse",
            terms=[equation],
            balancer=balancing.NTK(),
            strategy=strategy,
        )
        data = np.array([[2.0]], "float32"), np.array([[0.0]], "float32")
        row = trainer.fit(data, steps=2, batch_size=1, log_every=1, verbose=False).rows[-1]
        ratio = row["weight/equation"] / row["weight/mean_squared_error"]
        assert ratio == pytest.approx(4 / 9, rel=1e-5)


@pytest.mark.parametrize(("every", "of_main"), [(1, 52 / 16), (2, 1)])
def test_ntk_weighs_terms_of_sources_of_other_sizes(every, of_main, two_replicas):
    """Of rows that are orthogonal the trace of a kernel is the sum of their squares.

    The weight is the sum of the traces, 4 * 2**2 + 2 * (2 * 3**2), over the term's. That of a term
    which a step does not have stays what it was; the others are weighed among themselves.
    """
    main, other = 2 * np.eye(4, dtype="float32"), 3 * np.eye(4, dtype="float32")[:2]

    def edge(step):
        return tf.square(step["other"].y_pred[:, 0] - 1)

    for strategy in ("one_device", two_replicas):
        trainer = Trainer(
            lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)]),
            optimizer=keras.optimizers.SGD(1e-4),
            loss="mse",
            terms=[losses.term(edge), losses.term(edge, name="same")],
            balancer=balancing.NTK(),
            strategy=strategy,
        )
        sources = Sources(main=(main, main[:, :1] + 5), other=(other,)).every(other=every)
        sizes = {"main": 4, "other": 2}
        row = trainer.fit(sources, batch_size=sizes, steps=5, log_every=1, verbose=False).rows[-1]
        weight = [row[f"weight/{name}"] for name in ("mean_squared_error", "edge", "same")]
        np.testing.assert_allclose(weight, [of_main, 52 / 18, 52 / 18], rtol=1e-4)
