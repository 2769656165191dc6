"""Constraints in training: optimum and multipliers, alike in every way of running a step."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import balancing
from tests.trainer.balancing.convex_problems import (
    PROBLEMS,
    Rows,
    draw_problems,
    make_terms,
)
from trainer import Phase, Sources, Trainer
from trainer.model.variables import read

KINDS = [
    dict(kind="lagrangian", rate=0.3),
    dict(kind="damped", rate=0.3, damping=1.0),
    dict(kind="augmented", penalty=2.0, every=10),
]


def check_optimum(arguments):
    problems = draw_problems()
    trainer = Trainer(
        Rows(), optimizer=keras.optimizers.SGD(0.4), terms=make_terms(problems, arguments)
    )
    x = np.zeros((1, PROBLEMS), "float32")
    trainer.fit((x,), steps=300, batch_size=1, verbose=False)
    multipliers = list(trainer.multipliers.values())
    np.testing.assert_allclose(trainer.model.x.numpy(), problems.optimum, atol=1e-3)
    np.testing.assert_allclose(multipliers, [b.multiplier for b in problems.bounds], atol=1e-3)


def test_twenty_convex_problems_end_at_their_optimum_and_multipliers():
    check_optimum(lambda problem: KINDS[problem % 3])


@pytest.mark.very_slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["kind"])
def test_each_kind_solves_all_twenty(kind):
    check_optimum(lambda problem: kind)


def test_a_linear_objective_circles_without_damping_and_settles_with_it():
    """Minimise -w under w <= 1: the optimum is 1, the multiplier 1."""

    def distance(**kind):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        model.set_weights([np.array([[0.0]])])
        terms = [
            losses.term(lambda s: -s.y_pred[:, 0], name="minus"),
            losses.Constraint(lambda s: s.y_pred[:, 0], name="w", at_most=1.0, **kind),
        ]
        trainer = Trainer(model, optimizer=keras.optimizers.SGD(0.1), terms=terms)
        trainer.fit((np.ones((1, 1), "float32"),), steps=300, batch_size=1, verbose=False)
        return np.hypot(model.get_weights()[0].item() - 1, trainer.multipliers["w"] - 1)

    assert distance(kind="lagrangian", rate=0.1) > 0.5
    assert distance(rate=0.1, damping=1.0) < 1e-3


def test_each_step_is_that_of_numpy():
    """Minimise (w - 2)^2 / 2 under w <= 1, by SGD of 0.5, rate 0.25 and damping 1.5."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[0.0]])])
    terms = [
        losses.term(lambda s: tf.square(s.y_pred[:, 0] - 2.0) / 2, name="square"),
        losses.Constraint(lambda s: s.y_pred[:, 0], "w", at_most=1.0, rate=0.25, damping=1.5),
    ]
    trainer = Trainer(model, optimizer=keras.optimizers.SGD(0.5), terms=terms)
    x = np.ones((4, 1), "float32")
    rows = trainer.fit((x,), steps=6, batch_size=4, log_every=1, verbose=False).rows
    w = multiplier = violation = 0.0
    for row in rows:
        weight = max(multiplier + 1.5 * violation, 0.0)
        violation = w - 1.0
        total = (w - 2.0) ** 2 / 2 + weight * violation
        multiplier = max(multiplier + 0.25 * violation, 0.0)
        expected = [violation, weight, max(violation, 0.0), multiplier, total]
        tags = ("raw/w", "weight/w", "violation/w", "multiplier/w", "total")
        np.testing.assert_allclose([row[tag] for tag in tags], expected, atol=1e-6)
        w -= 0.5 * (w - 2.0 + weight)
    before = trainer.multipliers["w"]
    values = trainer.evaluate((x,))
    assert values["raw/w"] == pytest.approx(w - 1.0, abs=1e-6)
    assert values["violation/w"] == pytest.approx(max(w - 1.0, 0.0), abs=1e-6)
    assert trainer.multipliers["w"] == before
    assert trainer.describe().splitlines()[2].split(maxsplit=2) == [
        *("w", "term"),
        "damped multiplier, at most 1",
    ]


# A rate with a proxy, by a moving average, and a mean: in every way of running a step.


def recall(step):
    hits = tf.cast(step.y_pred > 0.5, tf.float32) * step.y
    return losses.Ratio(tf.reduce_sum(hits), tf.reduce_sum(step.y))


def soft_recall(step):
    return losses.Ratio(tf.reduce_sum(step.y_pred * step.y), tf.reduce_sum(step.y))


def make_model():
    ones = functools.partial(keras.layers.Dense, kernel_initializer="ones")
    return keras.Sequential([keras.Input((3,)), ones(1, activation="sigmoid")])


def constraints(**more):
    return [
        losses.Constraint(recall, at_least=0.9, proxy=soft_recall, rate=0.5, average=0.7, **more),
        losses.Constraint(lambda s: s.y_pred[:, 0], "mean", at_most=0.3, rate=0.5),
    ]


def labelled():
    """15 examples; of the last three, the last batch of three, none is positive."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(15, 3)).astype("float32")
    y = (rng.uniform(size=(15, 1)) < 0.5).astype("float32")
    y[12:] = 0.0
    return x, y


def trained(batch_size=6, steps=20, optimizer=None, **arguments):
    """The last row, and the weights with the multipliers behind them."""
    arguments = {"strategy": "one_device", "loss": "binary_crossentropy", **arguments}
    optimizer = keras.optimizers.SGD(0.1) if optimizer is None else optimizer
    trainer = Trainer(make_model, optimizer=optimizer, terms=constraints(), **arguments)
    data = dict(batch_size=batch_size, shuffle=False)  # batches of 6, 6 and 3
    history = trainer.fit(labelled(), steps=steps, log_every=steps, verbose=False, **data)
    weights = [np.ravel(read(variable)) for variable in trainer.model.variables]
    return history.rows[-1], np.concatenate([*weights, list(trainer.multipliers.values())])


@pytest.fixture(scope="module")
def alone():
    """On one device, without XLA, of 20 steps."""
    row, values = trained()
    assert (values[-2:] > 0.1).all()  # both multipliers have moved
    assert row["average/recall"] != row["raw/recall"]
    return row, values


def check_alike(row, values, alone):
    tags = [tag for tag in alone[0] if tag.startswith(("total", "raw/", "weight/", "multiplier/"))]
    tags += [tag for tag in alone[0] if tag.startswith(("violation/", "average/"))]
    np.testing.assert_allclose(
        [row[tag] for tag in tags], [alone[0][tag] for tag in tags], rtol=2e-6, atol=1e-6
    )
    np.testing.assert_allclose(values, alone[1], rtol=0, atol=5e-6)


def test_two_replicas_are_one(two_replicas, alone):
    check_alike(*trained(strategy=two_replicas), alone)


@pytest.mark.very_slow
def test_two_replicas_that_xla_compiles_are_one(two_replicas, alone):
    check_alike(*trained(strategy=two_replicas, jit_compile=True), alone)


def test_xla_is_alike(alone):
    check_alike(*trained(jit_compile=True), alone)


@pytest.mark.very_slow
def test_python_is_alike(alone):
    check_alike(*trained(run_eagerly=True), alone)


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.very_slow)])
def test_an_accumulated_update_is_that_of_one_batch(two_replicas, replicas):
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    strategy = two_replicas if replicas == 2 else "one_device"
    _, accumulated = trained(optimizer=optimizer, strategy=strategy, steps=12)
    _, whole = trained(batch_size=15, steps=4)
    np.testing.assert_allclose(accumulated, whole, atol=5e-6)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(workdir):
    def optimizer():
        return keras.optimizers.Adam(0.05, gradient_accumulation_steps=3)

    trained(steps=7, optimizer=optimizer(), workdir=workdir)  # within an update
    _, resumed = trained(steps=12, optimizer=optimizer(), workdir=workdir)
    _, whole = trained(steps=12, optimizer=optimizer())
    np.testing.assert_array_equal(resumed, whole)


def test_a_batch_without_the_examples_moves_no_multiplier():
    x, y = labelled()
    trainer = Trainer(make_model, optimizer="sgd", loss="mse", terms=constraints())
    rows = trainer.fit((x[12:], y[12:]), steps=2, batch_size=3, log_every=1, verbose=False).rows
    assert rows[-1]["raw/recall"] is None and rows[-1]["violation/recall"] is None
    assert rows[-1]["multiplier/recall"] == 0.0 and rows[-1]["multiplier/mean"] > 0


def test_a_step_that_is_skipped_moves_no_multiplier():
    x, y = labelled()
    x[4] = np.nan
    terms, arguments = constraints(), dict(optimizer="sgd", loss="mse", on_nonfinite="skip")
    trainer = Trainer(make_model, terms=terms, **arguments)
    data = dict(batch_size=5, log_every=1, shuffle=False, verbose=False)
    rows = trainer.fit((x, y), steps=2, **data).rows
    assert rows[0]["skipped_steps"] == 1 and rows[0]["multiplier/mean"] == 0.0
    alone = Trainer(make_model, terms=constraints(), **arguments)
    expected = alone.fit((x[5:], y[5:]), steps=1, **data).rows[0]
    assert rows[1]["multiplier/mean"] == expected["multiplier/mean"] > 0
    assert rows[1]["average/recall"] == expected["average/recall"]


def test_a_balancer_passes_over_constraints():
    row, values = trained(balancer=balancing.PCGrad(terms="*"), steps=4)
    plain_row, plain_values = trained(steps=4)
    assert row["weight/recall"] == pytest.approx(plain_row["weight/recall"], rel=1e-6)
    assert row["total"] == pytest.approx(plain_row["total"], rel=1e-6)
    np.testing.assert_allclose(values, plain_values, atol=1e-6)  # of one balanced term


@pytest.mark.parametrize(
    "arguments, said",
    [
        (dict(balancer=balancing.PCGrad(terms=["recall"])), "names constraint 'recall'"),
        (dict(loss_weights={"recall": 2.0}), "names 'recall', which weighs constraint 'recall'"),
        (dict(loss_weights={"re*": 2.0}), r"names 're\*', which weighs constraint 'recall'"),
    ],
)
def test_nothing_else_weighs_a_constraint(arguments, said):
    with pytest.raises(losses.TermwiseError, match=said):
        trained(steps=1, **arguments)


def test_a_rate_without_a_proxy_is_refused():
    terms = [losses.Constraint(recall, at_least=0.9)]
    trainer = Trainer(make_model, optimizer="sgd", loss="mse", terms=terms)
    with pytest.raises(losses.TermwiseError, match="'recall' has no gradient"):
        trainer.build(labelled(), batch_size=5)


def test_a_constraint_that_compute_terms_leaves_out_is_refused():
    class Forgetful(Trainer):
        def compute_terms(self, step):
            return {"square": tf.square(step.y_pred - step.y)[:, 0]}

    trainer = Forgetful(make_model, optimizer="sgd", terms=constraints())
    with (
        pytest.warns(UserWarning, match="terms= of the Trainer: nothing of it"),
        pytest.raises(losses.TermwiseError, match="'recall' is none of the terms"),
    ):
        trainer.build(labelled(), batch_size=5)


def test_a_train_step_that_moves_no_multiplier_is_refused():
    class Apart(Trainer):
        def train_step(self, batch):
            gradients, record = self.compute_gradients(batch)
            if self.name == "whole":
                self.apply_gradients(gradients, record)
            return record

    def build(name):
        arguments = dict(optimizer="sgd", loss="mse", terms=constraints(), name=name)
        Apart(make_model, **arguments).build(labelled(), batch_size=5)

    build("whole")
    with pytest.raises(losses.TermwiseError, match="never moves the multiplier of constraint 're"):
        build("part")


def test_two_trainers_of_one_constraint_have_a_multiplier_each():
    terms = constraints()
    first, second = (Trainer(make_model, loss="mse", terms=terms) for _ in range(2))
    first.fit(labelled(), steps=2, batch_size=5, verbose=False)
    assert first.multipliers["mean"] > 0 == second.multipliers["mean"]


def test_a_phase_leaves_a_constraint_out_by_a_weight_of_0_and_weighs_it_by_no_other():
    trainer = Trainer(make_model, optimizer="sgd", loss="mse", terms=constraints())
    phases = [Phase("free", until=2, weights={"mean": 0.0}), Phase("bound")]
    data = dict(batch_size=15, log_every=1, verbose=False)
    rows = trainer.fit(labelled(), steps=4, phases=phases, **data).rows
    assert [row["raw/mean"] is None for row in rows] == [True, True, False, False]
    assert rows[1]["multiplier/mean"] == 0.0 < rows[3]["multiplier/mean"]
    assert rows[1]["multiplier/recall"] != 0.0
    phases = [Phase("weighed", weights={"mean": 2.0})]
    with pytest.raises(losses.TermwiseError, match="phase 'weighed' names 'mean', which weighs"):
        trainer.fit(labelled(), steps=6, phases=phases, **data)


def mean_of_unlabelled(step):
    return step.y_pred[:, 0]


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_constraint_counts_the_examples_of_its_own_source(two_replicas, replicas):
    """By source=, or by asking the step; on two replicas one of them has no unlabelled example."""
    x, y = labelled()

    def ask(step):
        return step["unlabelled"].y_pred[:, 0]

    terms = [
        losses.Constraint(mean_of_unlabelled, at_most=0.3, source="unlabelled"),
        losses.Constraint(ask, at_most=0.3),
    ]
    strategy = two_replicas if replicas == 2 else "one_device"
    trainer = Trainer(make_model, optimizer="sgd", loss="mse", terms=terms, strategy=strategy)
    expected = 1 / (1 + np.exp(-x[:1].sum())) - 0.3
    sources = Sources(labelled=(x, y), unlabelled=(x[:1],))
    sizes = {"labelled": 15, "unlabelled": 1}
    row = trainer.fit(sources, steps=1, batch_size=sizes, log_every=1, verbose=False).rows[0]
    for name in ("mean_of_unlabelled", "ask"):
        assert row[f"raw/{name}"] == pytest.approx(expected, abs=1e-6)
        assert row[f"multiplier/{name}"] == pytest.approx(0.01 * expected, abs=1e-7)


def test_a_constraint_that_nothing_keeps_is_told(capsys):
    """A sigmoid is above 0: at most -0.1 cannot be; at most 0.1 can."""
    terms = [
        losses.Constraint(lambda s: s.y_pred[:, 0], name, at_most=bound, rate=0.5)
        for name, bound in (("never", -0.1), ("soon", 0.1))
    ]
    trainer = Trainer(make_model, optimizer=keras.optimizers.Adam(0.1), terms=terms)
    trainer.fit(labelled(), steps=300, batch_size=15, log_every=10, verbose=False)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "infeasible" in line]
    assert line.startswith("warning: constraint 'never' (at most -0.1) was violated in each of")
