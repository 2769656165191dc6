"""A run of another process is restored to be looked at, without any data being read."""

import keras
import numpy as np
import pytest

from trainer import Trainer

X = np.linspace(-1, 1, 16, dtype="float32")[:, None]


def trainer(workdir, **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="line")])
    return Trainer(model, optimizer="sgd", loss="mse", workdir=workdir, **arguments)


def kernel(one):
    return float(one.model.get_layer("line").kernel.numpy()[0, 0])


def test_what_another_process_trained_is_there_after_restore(workdir, tmp_path):
    first = trainer(workdir)
    first.fit((X, 2 * X), steps=5, batch_size=16, verbose=False)
    later = trainer(workdir)
    with pytest.raises(ValueError, match=r"restore\(\): the run is not built. Call trainer.build"):
        later.restore()
    later.build((X, 2 * X), batch_size=16)
    started = kernel(later)
    assert later.restore() == 5
    assert kernel(later) == kernel(first) != started
    warm = trainer(tmp_path / "warm", init_from=workdir)
    warm.build((X, 2 * X), batch_size=16)
    assert warm.restore() == 0
    assert kernel(warm) == kernel(first)


def test_a_run_that_has_gone_on_is_left_as_it_is(workdir):
    one = trainer(workdir)
    one.fit((X, 2 * X), steps=5, batch_size=16, verbose=False)
    one.model.get_layer("line").kernel.assign([[7.0]])
    assert one.restore() == 5
    assert kernel(one) == 7.0
