"""Two replicas and one give the same answer, case by case; several hosts: test_hosts.py."""

import numpy as np
import pytest
import tensorflow as tf

import losses
from benchmarks.replica_cases import CASES, differences, sgd, train, vectors
from benchmarks.replica_models import regularized
from trainer import Trainer


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", CASES)
def test_two_replicas_give_the_weights_of_one(name, two_replicas):
    ledger, weights = differences(
        train(CASES[name], "one_device"), train(CASES[name], two_replicas)
    )
    assert ledger <= 1e-6
    assert weights <= 5e-6


def test_evaluation_and_prediction_on_two_replicas_are_exact(two_replicas):
    x, y, weight = vectors()
    one = Trainer(regularized, optimizer="sgd", loss="mse", metrics=["mae"], strategy="one_device")
    two = Trainer(regularized, optimizer="sgd", loss="mse", metrics=["mae"], strategy=two_replicas)
    for batch in (32, 97, 96):
        expected = one.evaluate((x, y, weight), batch_size=batch)
        assert two.evaluate((x, y, weight), batch_size=batch) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(
            two.predict(x, batch_size=batch), one.predict(x, batch_size=batch), rtol=1e-5, atol=1e-6
        )


def test_a_model_built_outside_the_scope_is_an_error(two_replicas):
    with pytest.raises(ValueError, match="Pass a function that builds it"):
        Trainer(regularized(), optimizer="sgd", loss="mse", strategy=two_replicas)


@pytest.mark.parametrize("kind", [tf.distribute.OneDeviceStrategy])
def test_a_strategy_object_of_one_device_trains_as_none(kind):
    x, y, weight = vectors()

    def totals(strategy):
        trainer = Trainer(
            regularized, optimizer=sgd(), loss="mse", metrics=["mae"], strategy=strategy
        )
        history = trainer.fit((x, y, weight), steps=5, batch_size=32, log_every=1, verbose=False)
        return [(row["total"], row["metrics/mae"]) for row in history.rows]

    assert totals(kind("cpu:0")) == totals("one_device")


def test_gradients_are_summed_in_one_batch_of_reductions(two_replicas, caplog, monkeypatch):
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    outside = losses.Parameter("outside", 1.0)
    terms = [losses.term(lambda s: tf.convert_to_tensor(outside) ** 2, name="outside")]
    trainer = Trainer(regularized, optimizer="sgd", loss="mse", terms=terms, strategy=two_replicas)
    trainer.build(vectors())
    assert "Efficient batch_reduce is not supported" not in caplog.text


def test_a_trainer_inside_a_scope_is_an_error(two_replicas):
    with two_replicas.scope(), pytest.raises(RuntimeError, match="leave the scope"):
        Trainer(regularized, optimizer="sgd", loss="mse", strategy=two_replicas)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mirored", "Did you mean 'mirrored'"),
        ("tpu", "is refused: TPUStrategy"),
        ("parameter_server", "is refused: Keras 3 optimizers"),
        ("multi_worker", "python -m trainer.launch"),
    ],
)
def test_a_strategy_that_cannot_be_used_says_why(name, message):
    with pytest.raises(ValueError, match=message):
        Trainer(regularized, optimizer="sgd", loss="mse", strategy=name)


def test_an_export_from_two_replicas_is_the_model_alone(two_replicas, tmp_path):
    trainer = Trainer(regularized, optimizer="sgd", loss="mse", strategy=two_replicas)
    x, y, _ = vectors()
    trainer.fit((x, y), steps=2, batch_size=32, verbose=False)
    path = trainer.export(tmp_path / "export")
    saved = tf.saved_model.load(str(path))
    np.testing.assert_allclose(saved.serve(x), trainer.predict(x), rtol=1e-5, atol=1e-6)


# a mean, one with a mask, one after the division, one that skips, one with a lookahead
COMPILED = ["mean", "a mask", "a batch-level root", "an inf on one replica", "accumulation"]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", COMPILED)
def test_two_compiled_replicas_give_the_weights_of_one(name, two_replicas):
    one = train(CASES[name], "one_device")
    two = train(CASES[name], two_replicas, jit_compile=True)
    ledger, weights = differences(one, two)
    assert ledger <= 1e-6
    assert weights <= 5e-6


def test_compiled_replicas_cannot_read_a_parameter_made_elsewhere(two_replicas):
    weight = losses.UncertaintyWeight()
    arguments = dict(loss="mse", loss_weights=weight, jit_compile=True)
    trainer = Trainer(regularized, optimizer="sgd", strategy=two_replicas, **arguments)
    with pytest.raises(ValueError, match="Make them in build_terms"):
        trainer.build(vectors())
