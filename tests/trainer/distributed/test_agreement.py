"""What hosts must agree on: other steps on another host are told, on all of them."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.distributed import Hosts


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
