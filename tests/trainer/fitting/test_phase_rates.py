"""Phases that draw a source at another rate: each goes on behind what was drawn of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Phase, Sources, Trainer

X = np.arange(12, dtype=np.float32)[:, None]
U = np.arange(100, 110, dtype=np.float32)[:, None]
STEPS = 20
PHASES = [
    Phase("without", until=6, rates={"u": 0}),
    Phase("second", until=12, rates={"u": 2}),
    Phase("as said", until=15),
    Phase("each", rates={"u": 1}),
]
# at which steps, counted from 0, and which number: every third step of all where nothing is set
DRAWN = {6: 100, 8: 101, 10: 102, 12: 103, 15: 104, 16: 105, 17: 106, 18: 107, 19: 108}


def value(step):
    return tf.reduce_sum(step.x, -1)


def make(phases=PHASES, workdir=None, **settings):
    keras.utils.set_random_seed(0)
    return Trainer(
        keras.Sequential([keras.Input([1]), keras.layers.Dense(1)]),
        optimizer=keras.optimizers.SGD(1e-6),
        loss="mse",
        terms=[losses.term(value, name="u", source="u")],
        phases=phases,
        workdir=workdir,
        **settings,
    )


def data(pipeline=False):
    u = tf.data.Dataset.from_tensor_slices((U,)).batch(1) if pipeline else (U,)
    return Sources(x=(X, X), u=u).every(u=3)


def fit(trainer, steps=STEPS, pipeline=False, **more):
    sizes = {"x": 4} if pipeline else {"x": 4, "u": 1}
    more = {"batch_size": sizes, "shuffle": False, "log_every": 1, "verbose": False, **more}
    return trainer.fit(data(pipeline), steps=steps, **more)


def drawn(history):
    return {row["step"] - 1: row["raw/u"] for row in history.rows if row["raw/u"] is not None}


@pytest.mark.parametrize("pipeline", [False, True])
def test_a_phase_draws_at_its_own_rate_and_goes_on_where_the_source_stands(pipeline):
    trainer = make()
    assert drawn(fit(trainer, pipeline=pipeline)) == DRAWN
    assert trainer.evaluate((X, X))["total"] > 0


@pytest.mark.parametrize("pipeline", [False, True])
def test_a_run_goes_on_in_the_midst_of_a_phase_as_if_it_had_not_stopped(tmp_path, pipeline):
    whole = make()
    fit(whole, pipeline=pipeline)
    for steps in (9, STEPS):  # each in another process would be made anew
        again = make(workdir=tmp_path)
        history = fit(again, steps, pipeline=pipeline)
    assert drawn(history) == DRAWN
    for mine, theirs in zip(again.model.weights, whole.model.weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_further_fit_without_phases_goes_on_behind_what_was_drawn():
    trainer = make()
    fit(trainer, 9)
    more = drawn(fit(trainer, 14, phases=()))
    assert more == {9: 102, 12: 103}


def test_other_data_in_the_midst_of_a_phase_are_drawn_at_its_rate(tmp_path):
    fit(make(workdir=tmp_path), 9)
    other = Sources(x=(X + 1, X), u=(U + 10,)).every(u=3)
    sizes = {"x": 4, "u": 1}
    again = make(workdir=tmp_path)
    rows = again.fit(other, steps=12, batch_size=sizes, shuffle=False, log_every=1, verbose=False)
    assert {n: v for n, v in drawn(rows).items() if n >= 9} == {9: 110, 11: 111}


def test_a_phase_may_draw_with_a_probability_as_sampled_does():
    phases = [Phase("often", until=200, rates={"u": 0.5}), Phase("rest", rates={"u": 0})]
    history = fit(make(phases), 220)
    places = sorted(drawn(history))
    assert 70 < len(places) < 130 and places[-1] < 200
    assert [drawn(history)[place] for place in places[:12]] == [*range(100, 110), 100, 101]
    assert drawn(fit(make(phases), 220)) == drawn(history)


def test_a_replay_is_of_the_phase_and_its_rates(tmp_path):
    fit(make(workdir=tmp_path), 9)
    assert "\nu " in make(workdir=tmp_path).replay(
        data(), 11, batch_size={"x": 4, "u": 1}
    )  # step 10, counted from 0, draws 102
    with pytest.raises(ValueError, match="Step 14 lies behind the phase 'second'"):
        make(workdir=tmp_path).replay(data(), 14, batch_size={"x": 4, "u": 1})
    with pytest.raises(ValueError, match=r"stands in the phase 'second'. Give Trainer\(phases=\)"):
        make((), workdir=tmp_path).replay(data(), 11, batch_size={"x": 4, "u": 1})


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"w": 2}, "rates= names the source 'w'; the sources are 'x', 'u'"),
        ({"x": 2}, "'x' is the main source, which every step draws"),
    ],
)
def test_rates_of_a_late_phase_are_checked_before_training(rates, message):
    trainer = make([Phase("a", until=15), Phase("b", rates=rates)])
    with pytest.raises(ValueError, match=message):
        fit(trainer)
    assert int(trainer.step) == 0


@pytest.mark.parametrize("rate", [-1, 1.5, "often", True])
def test_a_bad_rate_is_one_clear_error(rate):
    with pytest.raises(ValueError, match="give every how many steps the source is drawn"):
        Phase("a", rates={"u": rate})


def test_rates_need_named_sources_and_no_accumulation():
    plain = Trainer(keras.Sequential([keras.Input([1]), keras.layers.Dense(1)]), loss="mse")
    with pytest.raises(ValueError, match=r"is no trainer\.Sources"):
        plain.fit((X, X), steps=2, batch_size=4, phases=[Phase("a", rates={"u": 2})])
    trainer = Trainer(
        keras.Sequential([keras.Input([1]), keras.layers.Dense(1)]),
        optimizer=keras.optimizers.SGD(1e-6, gradient_accumulation_steps=2),
        loss="mse",
        terms=[losses.term(value, name="u", source="u")],
    )
    with pytest.raises(ValueError, match="cannot be counted over accumulated steps"):
        trainer.fit(
            Sources(x=(X, X), u=(U,)),
            steps=4,
            batch_size=4,
            phases=[Phase("a", until=2), Phase("b", rates={"u": 2})],
        )


def test_weights_and_groups_of_a_late_phase_are_checked_before_training():
    late = [Phase("a", until=15), Phase("b", weights={"no such": 2.0})]
    trainer = make(late)
    with pytest.raises(ValueError, match="no such"):
        fit(trainer)
    trainer = make([Phase("a", until=15), Phase("b", trains="head")])
    with pytest.raises(ValueError, match="trains the group 'head'"):
        fit(trainer)
    assert int(trainer.step) == 0


def test_a_rate_of_a_late_phase_for_a_schedule_is_an_error_before_training():
    schedule = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9))
    trainer = Trainer(
        keras.Sequential([keras.Input([1]), keras.layers.Dense(1)]), optimizer=schedule, loss="mse"
    )
    with pytest.raises(ValueError, match="the optimizer's is a schedule"):
        trainer.fit(
            (X, X),
            steps=4,
            batch_size=4,
            phases=[Phase("a", until=2), Phase("b", learning_rate=0.1)],
        )
    assert int(trainer.step) == 0
