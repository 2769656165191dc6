"""What hosts must agree on: other steps on another host are told, on all of them."""

import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.distributed import Hosts, agreement
from trainer.distributed.agreement import check_alike, scope_of_all


class Two(Hosts):
    """Two hosts in one process: what the other one would say is an attribute."""

    def __init__(self, others):
        super().__init__(tf.distribute.get_strategy())
        self.count, self.others = 2, others

    def exchange(self, *numbers):
        return np.array([numbers, self.others], np.float64)


PLAN = {"steps": 100, "log_every": 10, "checkpoint_every": None}


def test_hosts_with_the_same_plan_go_on():
    Two([100, 10, np.nan]).check_same("fit", PLAN)
    Hosts(tf.distribute.get_strategy()).check_same("fit", PLAN)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            [200, 10, np.nan],
            "fit: steps differs between the hosts; from the chief on it is 100, ",
        ),
        ([100, 10, 50], "fit: checkpoint_every differs .* it is None, 50. Start all hosts with"),
        ([100, np.nan, np.nan], "fit: log_every differs .* it is 10, None"),
    ],
)
def test_a_host_with_another_plan_is_told(others, message):
    with pytest.raises(ValueError, match=message):
        Two(others).check_same("fit", PLAN)


SETTINGS = {"optimizer": {"name": "adam_1"}, "loss": "<function mse at 0x7f01>", "seed": 0}


class Told(Two):
    """Two hosts, of which the other one says what this one does, but for one place."""

    def __init__(self, place=None):
        super().__init__(None)
        self.place = place

    def exchange(self, *numbers):
        others = [number + (place == self.place) for place, number in enumerate(numbers)]
        return np.array([numbers, others], np.float64)


def test_hosts_with_the_same_settings_go_on():
    check_alike(Told(), SETTINGS)
    digests = []

    class Notes(Told):
        def exchange(self, *numbers):
            digests.append(numbers)
            return super().exchange(*numbers)

    # automatic numbers, addresses and drawn seeds are each process's own
    check_alike(Notes(), {"a": "dense_1 at 0x7f01", "b": {"seed": 3}})
    check_alike(Notes(), {"a": "dense_7 at 0x7f02", "b": {"seed": 4}})
    check_alike(Notes(), {"a": "conv", "b": {"seed": 4}})
    assert digests[0] == digests[1] != digests[2]


def test_hosts_with_another_setting_are_told_which():
    with pytest.raises(ValueError, match=r"^loss differs between the hosts; on host 0 it is \"<fu"):
        check_alike(Told(1), SETTINGS)


@pytest.mark.parametrize("others", [2, 4, [2, 3]], ids=str)
def test_hosts_that_build_other_models_are_told_before_the_variable_is_made(others, monkeypatch):
    """The other host makes so many variables of one shape, or of the shapes given."""
    shapes = [3] * others if isinstance(others, int) else [3, *others]
    kinds = iter([*(f"float32 ({shape},)" for shape in shapes), ""])

    class Other(Two):
        def exchange(self, digest):
            return np.array([[digest], [zlib.crc32(next(kinds).encode())]])

    monkeypatch.setattr(agreement, "Hosts", lambda strategy: Other(None))
    made = []
    with (
        pytest.raises(ValueError, match=r"^The model differs between the hosts: variable \d on ho"),
        scope_of_all(tf.distribute.get_strategy()),
    ):
        for _ in range(3):
            made.append(keras.Variable(tf.zeros([3]), name="kernel"))
    assert len(made) == {2: 2, 4: 3}.get(others if isinstance(others, int) else 0, 1)


def test_hosts_that_build_the_same_model_go_on(monkeypatch):
    monkeypatch.setattr(agreement, "Hosts", lambda strategy: Told())
    with scope_of_all(tf.distribute.get_strategy()):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    assert [tuple(v.shape) for v in model.weights] == [(2, 3), (3,)]
