"""InfoNCE: by formula in float64, its learned scale, and two replicas as one."""

import keras
import numpy as np
import pytest

import losses
from losses import InfoNCE
from trainer import Trainer
from trainer.model.variables import read


def towers(pairs=5, features=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(pairs, features)), rng.normal(size=(pairs, features))


def info_nce(a, b, temperature, symmetric=True):
    """The cross-entropy of each row, and of each column, of the similarities, pair by pair."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    s, values = a @ b.T / temperature, []
    for i in range(len(a)):
        row = np.log(sum(np.exp(s[i, k]) for k in range(len(b)))) - s[i, i]
        column = np.log(sum(np.exp(s[k, i]) for k in range(len(a)))) - s[i, i]
        values.append((row + column) / 2 if symmetric else row)
    return values


@pytest.mark.parametrize("symmetric", [True, False])
def test_it_is_the_cross_entropy_of_rows_and_columns(symmetric):
    a, b = towers()
    loss = InfoNCE(0.3, symmetric=symmetric, dtype="float64")
    expected = info_nce(a, b, 0.3, symmetric)
    np.testing.assert_allclose(loss.call(a, b), expected, rtol=1e-7)
    np.testing.assert_allclose(loss.call(None, np.stack([a, b], 1)), expected, rtol=1e-7)


def test_a_pair_of_weight_0_is_absent_from_the_sums_of_the_others():
    a, b = towers()
    weights = np.array([1.0, 0.0, 2.0, 1.0, 1.0])
    a[1] = np.nan
    value = InfoNCE(0.3, dtype="float64")(a, b, weights)
    present = weights > 0
    expected = np.sum(weights[present] * info_nce(a[present], b[present], 0.3)) / 5
    np.testing.assert_allclose(value, expected, rtol=1e-7)


def test_it_is_restored_from_its_configuration():
    loss = InfoNCE(0.2, largest_scale=50.0, symmetric=False, name="clip")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert losses.get("info_nce").largest_scale == 100.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InfoNCE(0), r"InfoNCE\(temperature=0\): give a number above 0"),
        (lambda: InfoNCE(0.001), r"InfoNCE\(temperature=0.001\): give one from 0.01"),
        (lambda: InfoNCE(2.0), r"to 1, or trainable=False"),
        (lambda: InfoNCE(largest_scale=1), r"InfoNCE\(largest_scale=1\): give a finite number"),
        (lambda: InfoNCE()(np.ones((2, 3)), np.ones((3, 3))), r"one shape .*\(2, 3\) and \(3, 3\)"),
    ],
)
def test_a_wrong_argument_is_named(make, message):
    with pytest.raises(losses.TermwiseError, match=message):
        make()


def model():
    inputs = keras.Input((4,))
    pair = [keras.layers.Dense(3, kernel_initializer=init)(inputs) for init in ("ones", "identity")]
    return keras.Model(inputs, keras.ops.stack(pair, axis=1), name="net")


def trained(strategy, steps, rate=0.1, **loss):
    """The last row and the weights, the logarithm of the scale behind them."""
    trainer = Trainer(
        model,
        optimizer=keras.optimizers.SGD(rate),
        loss=InfoNCE(**loss),
        strategy=strategy,
    )
    x = np.random.default_rng(1).normal(size=(11, 4)).astype("float32")
    data = dict(batch_size=7, log_every=steps, shuffle=False, verbose=False)
    row = trainer.fit((x,), steps=steps, **data).rows[-1]  # batches of 7 and of 4
    variables = [*trainer.model.variables, *trainer.loss_parameters.values()]
    return row, np.concatenate([np.ravel(read(variable)) for variable in variables])


def test_two_replicas_are_one(two_replicas):
    row, weights = trained(two_replicas, 20)
    expected_row, expected = trained("one_device", 20)
    assert expected_row["loss_parameters/info_nce/log_scale"] != pytest.approx(-np.log(0.07), 1e-3)
    np.testing.assert_allclose(row["total"], expected_row["total"], rtol=1e-6)
    np.testing.assert_allclose(weights, expected, atol=5e-6)


def test_the_scale_ends_where_it_is_clipped():
    """Of towers that agree the loss falls with the scale for ever."""
    tower = keras.layers.Dense(3, kernel_initializer="identity", use_bias=False, trainable=False)
    inputs = keras.Input((3,))
    both = keras.ops.stack([tower(inputs)] * 2, axis=1)
    loss = InfoNCE(0.5, largest_scale=3.0)
    optimizer = keras.optimizers.SGD(5.0)
    trainer = Trainer(keras.Model(inputs, both), optimizer=optimizer, loss=loss)
    trainer.fit((np.eye(3, dtype="float32"),), steps=5, batch_size=3, verbose=False)
    assert float(loss.scale) == pytest.approx(3.0, rel=1e-6)
