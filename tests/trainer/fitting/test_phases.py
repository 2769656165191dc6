"""Phases: spans of a training with weights, groups that train, and a learning rate of their own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Phase, Reached, Trainer

RNG = np.random.default_rng(1)
X, Y = (RNG.normal(size=(64, n)).astype(np.float32) for n in (3, 1))
STEPS = 24


def model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="tanh", name="body"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input([3]), *layers])


def small(step):
    return tf.reduce_sum(tf.square(step.y_pred), -1)


PHASES = [
    Phase("head", until=8, weights={"small": 0.0}, trains="head", learning_rate=0.1),
    Phase("both", until=16, weights={"small": 0.5}, learning_rate=0.02),
    Phase("end"),
]
GROUPS = {"body": "body/*", "head": "dense*"}


def make(**settings):
    return Trainer(
        model,
        loss="mse",
        terms=[losses.term(small, weight=2.0)],
        optimizer={name: keras.optimizers.SGD(0.05, momentum=0.5) for name in GROUPS},
        groups=GROUPS,
        **settings,
    )


def fit(trainer, steps=STEPS, phases=PHASES, **more):
    fit = {"batch_size": 16, "shuffle": False, "log_every": 5, "verbose": False, **more}
    return trainer.fit((X, Y), steps=steps, phases=phases, **fit)


@pytest.fixture(scope="module")
def by_hand():
    """The weights of a hand-written loop, and the totals of its steps."""
    network, totals = model(), []
    optimizers = [keras.optimizers.SGD(0.05, momentum=0.5) for _ in GROUPS]
    parts = [network.layers[0].trainable_variables, network.layers[1].trainable_variables]
    for number in range(STEPS):
        start = number % 4 * 16
        x, y = X[start : start + 16], Y[start : start + 16]
        weight, rate = (0.0, 0.1) if number < 8 else (0.5, 0.02) if number < 16 else (2.0, 0.02)
        with tf.GradientTape(persistent=True) as tape:
            outputs = network(x)
            total = tf.reduce_mean(tf.square(outputs - y))
            total += weight * tf.reduce_mean(tf.square(outputs))
        for optimizer, variables in list(zip(optimizers, parts, strict=True))[number < 8 :]:
            optimizer.learning_rate = rate
            gradients = tape.gradient(total, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        totals.append(float(total))
    return network.get_weights(), totals


@pytest.mark.parametrize("settings", [{}, {"jit_compile": True}, {"run_eagerly": True}])
def test_phases_set_weights_what_trains_and_the_rate_as_by_hand(by_hand, settings):
    trainer = make(**settings)
    history = fit(trainer)
    for mine, theirs in zip(trainer.model.get_weights(), by_hand[0], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)
    ends = [row["step"] for row in history.rows]
    assert ends == [5, 8, 10, 15, 16, 20, 24]  # a phase ends its row
    assert [row["phase"] for row in history.rows] == ["head"] * 2 + ["both"] * 3 + ["end"] * 2
    means = [np.mean(by_hand[1][a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    np.testing.assert_allclose([row["total"] for row in history.rows], means, rtol=1e-5)
    assert history.rows[0]["raw/small"] is None and history.rows[2]["weight/small"] == 0.5


def test_two_replicas_are_in_the_same_phase(by_hand, two_replicas):
    trainer = make(strategy=two_replicas)
    fit(trainer)
    for mine, theirs in zip(trainer.model.get_weights(), by_hand[0], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)


def test_a_run_interrupted_inside_any_phase_goes_on_exactly(tmp_path):
    whole = make()
    fit(whole)
    for steps in (3, 8, 11, 16, STEPS):
        parts = make(workdir=tmp_path / "run")
        history = fit(parts, steps)
    for mine, theirs in zip(parts.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    phases = {row["step"]: row["phase"] for row in history.rows}
    assert phases[3] == "head" and phases[11] == "both" and phases[STEPS] == "end"


def test_a_phase_ends_when_a_value_is_reached_for_some_rows(tmp_path):
    falling = Phase("fit", until=Reached("raw/mean_squared_error", below=0.826, rows=2))
    phases = [falling, Phase("rest", weights={"small": 0.0})]
    whole = make()
    rows = fit(whole, 40, phases, log_every=4).rows
    passed = [row["raw/mean_squared_error"] < 0.826 for row in rows]
    first = next(i for i in range(1, len(rows)) if passed[i - 1] and passed[i])
    assert 1 < first < len(rows) - 1
    expected = ["fit"] * (first + 1) + ["rest"] * (len(rows) - first - 1)
    assert [row["phase"] for row in rows] == expected
    for steps in (rows[first]["step"] - 4, rows[first]["step"] + 4, 40):
        parts = make(workdir=tmp_path / "run")
        again = fit(parts, steps, phases, log_every=4).rows
    assert [row["phase"] for row in again] == expected
    for mine, theirs in zip(parts.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_phases_of_the_constructor_are_those_of_every_fit(capsys):
    trainer = make(phases=[Phase("warm", until=4, weights={"sm*": 0.1}), Phase("rest")])
    history = trainer.fit((X, Y), batch_size=16, steps=8, log_every=4)
    assert [row["weight/small"] for row in history.rows] == [pytest.approx(0.1), 2.0]
    out = capsys.readouterr().out
    assert "phase warm: weights sm* 0.1, until step 4" in out
    assert "phase rest from step 4" in out


def test_evaluation_has_the_weights_of_the_phase():
    trainer = make()
    history = fit(trainer, 16, validation_data=(X, Y), validate_every=8)
    rows = [row for row in history.rows if row["split"] == "eval"]
    assert [row["weight/small"] for row in rows] == [0.5, 2.0]  # after the phase has ended
    assert [row["phase"] for row in rows] == ["both", "end"]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("warm", "give a list of trainer.Phase"),
        ([Phase("a"), Phase("b")], "Phase 'a' has no end, and others follow"),
        ([Phase("a", until=5), Phase("a")], "Two phases are called 'a'"),
        ([Phase("a", until=5), Phase("b", until=5)], "no later than the step 5"),
        ([Phase("a", weights={"smal": 0.0})], "phase 'a' names term 'smal'"),
        ([Phase("a", weights={"small": losses.UncertaintyWeight()})], "a weight that learns"),
        ([Phase("a", trains="heads")], "Phase 'a' trains the group 'heads'; the groups are 'body'"),
        ([Phase("a", learning_rate={"x": 0.1})], "learning rate of 'x'; the groups are"),
    ],
)
def test_bad_phases_are_one_clear_error(phases, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit(make(), phases=phases)


def test_a_condition_on_what_is_not_logged_is_an_error():
    phases = [Phase("a", until=Reached("raw/kl", below=0.1)), Phase("b")]
    with pytest.raises(ValueError, match="'raw/kl', which is not in the rows"):
        fit(make(), phases=phases)
    with pytest.raises(ValueError, match="needs below= or above="):
        Reached("total")


def test_an_interrupted_run_is_not_resumed_with_other_phases(tmp_path):
    class Breaks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    trainer = make(workdir=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, 8, validate_every=4, callbacks=[Breaks()])
    with pytest.raises(ValueError, match="stands in the phase 'head', which is not among"):
        fit(trainer, phases=[Phase("other")])


def test_a_further_fit_may_have_phases_of_its_own():
    trainer = make()
    fit(trainer, 8)
    rows = fit(trainer, 16, phases=[Phase("second", until=12, weights={"small": 0.1}), Phase("c")])
    phases = {row["step"]: row["phase"] for row in rows.rows}
    assert phases == {10: "second", 12: "second", 15: "c", 16: "c"}


def test_a_weight_set_by_hand_counts_from_then_on_as_if_it_had_been_given():
    trainer = make()
    fit(trainer, 8, phases=None)
    trainer.set_weight("small", 0.25)
    assert trainer.evaluate((X, Y))["weight/small"] == 0.25
    rows = fit(trainer, 16, phases=None).rows
    assert [row["weight/small"] for row in rows] == [0.25] * 3
    trainer.set_weight("small", 0.0)
    assert fit(trainer, 20, phases=None).rows[-1]["raw/small"] is None

    by_phase = make()
    fit(by_phase, 16, phases=[Phase("a", until=8), Phase("b", weights={"small": 0.25})])
    trainer = make()
    fit(trainer, 8, phases=None)
    trainer.set_weight("sm*", 0.25)
    fit(trainer, 16, phases=None)
    for mine, theirs in zip(trainer.model.get_weights(), by_phase.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_weight_of_no_term_is_refused_at_once():
    trainer = make()
    fit(trainer, 1, phases=None)
    with pytest.raises(ValueError, match=r"set_weight\(\) names term 'smal'; the terms are"):
        trainer.set_weight("smal", 0.5)
    with pytest.raises(ValueError, match="The weight of term 'small' is nan"):
        trainer.set_weight("small", float("nan"))
    assert trainer.evaluate((X, Y))["weight/small"] == 2.0


def test_a_phase_that_never_ends_is_told(capsys):
    phases = [Phase("fit", until=Reached("total", below=-1.0)), Phase("rest")]
    fit(make(), 4, phases=phases, verbose=True)
    told = capsys.readouterr().err
    assert "Phase 'fit' has not ended: it goes on until total is below -1, and 'rest' never" in told


def test_a_variable_as_the_weight_of_a_phase_is_read_and_not_trained():
    dial = tf.Variable(0.25)
    trainer = make()
    rows = fit(
        trainer, 4, phases=[Phase("a", weights={"small": dial})], validation_data=(X, Y)
    ).rows
    assert [row["weight/small"] for row in rows] == [0.25, 0.25]
    dial.assign(0.5)
    assert trainer.evaluate((X, Y))["weight/small"] == 0.5
