"""A recall held by a constraint: what it counts, where, and what sampling explains."""

from math import comb

import numpy as np
import pytest
import tensorflow as tf

import losses
from experiments.configs import constrained as config_file
from experiments.gallery import constrained


def configured(**changes):
    config = config_file.get_config()
    config.update(changes)
    return config.lock()


def fitted(strategy="one_device", **changes):
    config = configured(steps=6, log_every=6, **changes)
    one = constrained.experiment(config, strategy=strategy, workdir=None)
    return one, one.trainer.fit(one.train_data, verbose=False, **one.fit).rows[-1]


def judged():
    """A step of four digits, three of them eights, of which one is missed, by 2 logits."""
    logits = np.zeros((4, 10), "float32")
    logits[:, 8] = [1.0, 3.0, -1.0, 5.0]
    logits[:, 3] = [0.0, 1.0, 1.0, 0.0]
    step = losses.Step(
        x=tf.zeros([4, 64]), y=tf.constant([8, 8, 8, 3]), model=None, step=0, training=True
    )
    step.y_pred = tf.constant(logits)
    return step


def test_the_recall_and_its_stand_in_count_the_eights_alone():
    step = judged()
    assert float(constrained.recall(step).value()) == pytest.approx(2 / 3)
    smooth = np.log1p(np.exp([-1.0, -2.0, 2.0])).mean()
    assert float(constrained.misses(step).value()) == pytest.approx(smooth, rel=1e-6)
    assert float(constrained.soft_recall(step).value()) == pytest.approx(-smooth, rel=1e-6)


def test_the_chance_is_the_lower_tail_of_a_binomial():
    tail = sum(comb(20, k) * 0.95**k * 0.05 ** (20 - k) for k in range(18))
    assert constrained.sampling_chance(17, 20, 0.95) == pytest.approx(tail, rel=1e-9)
    assert constrained.sampling_chance(20, 20, 0.95) == 1.0


def test_the_parts_share_nothing_and_depend_on_the_seed():
    parts = constrained.make_sets(0)
    assert {name: len(y) for name, (_, y) in parts.items()} == {
        "train": 718,
        "held": 539,
        "test": 540,
    }
    images = {x.tobytes() for part, _ in parts.values() for x in part}
    assert len(images) == 1797
    assert not np.array_equal(parts["test"][1], constrained.make_sets(1)["test"][1])


@pytest.fixture(scope="module")
def trained():
    return fitted()


def test_an_evaluation_counts_the_eights_of_its_own_data(trained):
    one, row = trained
    held, test = (one.trainer.evaluate(data) for data in (one.validation_data, one.test_data))
    for (x, y), values in ((one.validation_data, held), (one.test_data, test)):
        eights = x[y == 8]
        found = (one.trainer.predict(eights).argmax(-1) == 8).mean()
        assert values["raw/recall"] == pytest.approx(0.9 - found, abs=1e-6)
    assert row["multiplier/recall"] > 0


def test_the_value_is_the_held_parts_and_the_gradient_the_others():
    train, held = judged(), judged()
    held.y_pred = -held.y_pred  # of the three eights only one is recalled now
    train.with_sources({"train": train, "held": held})
    (constraint,) = constrained.make_terms(configured())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([train.y_pred, held.y_pred])
        value = constraint.call(train).value()
        misses = constrained.misses(train).value()
    assert float(value) == pytest.approx(0.9 - 1 / 3)
    np.testing.assert_allclose(
        tape.gradient(value, train.y_pred), tape.gradient(misses, train.y_pred), rtol=1e-6
    )
    held_slope = tape.gradient(value, held.y_pred)
    assert held_slope is None or not np.any(held_slope)


@pytest.mark.slow
def test_two_replicas_hold_the_constraint_as_one_does(two_replicas):
    rows = [fitted(strategy, held_batch_size=75)[1] for strategy in ("one_device", two_replicas)]
    for name in ("total", "raw/recall", "multiplier/recall"):
        assert rows[1][name] == pytest.approx(rows[0][name], rel=1e-5)


def test_what_it_is_compared_with_has_other_terms():
    (constraint,) = constrained.make_terms(configured(variant="train"))
    assert float(constraint.call(judged()).value()) == pytest.approx(0.9 - 2 / 3)
    (term,) = constrained.make_terms(configured(variant="weight"))
    assert term.weight == config_file.get_config().loss_weights.misses
    smooth = np.log1p(np.exp([-1.0, -2.0, 2.0])).mean()
    assert float(term.call(judged()).value()) == pytest.approx(smooth, rel=1e-6)
    assert constrained.make_terms(configured(variant="plain")) == []


def test_the_plain_one_is_told_and_compared():
    one, row = fitted(variant="plain")
    assert {name for name in row if name.startswith("raw/")} == {
        "raw/cross_entropy",
        "raw/regularization/linear/digit/kernel",
    }
    checks = one.check(one.trainer)
    assert len(checks) == 5
    assert all(check.at_least is None for check in checks.values())


def test_the_checks_are_of_the_test_set(trained):
    one, _ = trained
    checks = one.check(one.trainer)
    x, y = one.test_data
    hits = one.trainer.predict(x[y == 8]).argmax(-1) == 8
    assert checks["recall, test"].value == pytest.approx(hits.mean())
    assert checks["chance of so few hits at the bound"].value == pytest.approx(
        constrained.sampling_chance(int(hits.sum()), len(hits), 0.9)
    )
    assert checks["chance of so few hits at the bound"].at_least == 0.05
    assert len(one.picture(one.trainer).axes) == 1


def test_another_variant_is_refused_by_name():
    with pytest.raises(ValueError, match="variant='tune': accepted are 'held', 'train', 'weight'"):
        fitted(variant="tune")


def test_data_without_names_are_read_in_batches_of_their_own():
    one = constrained.experiment(configured(), strategy="one_device", workdir=None)
    assert one.batch_of(one.train_data) == {"batch_size": {"train": 64, "held": 539}}
    assert one.batch_of(one.test_data) == {}
    plain = constrained.experiment(configured(variant="plain"), strategy="one_device", workdir=None)
    assert plain.batch_of(plain.test_data) == {"batch_size": 64}
