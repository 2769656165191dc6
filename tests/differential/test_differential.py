"""A few drawn programs: as under Keras, on two replicas as on one, interrupted as whole.

`make fuzz MINUTES=30` draws more of them.
"""

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.differential.compare import differences
from tests.differential.draws import programs


@pytest.mark.slow
@seed(20261126)
@settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_a_drawn_program_trains_as_under_keras(two_replicas, program):
    assert differences(program, two_replicas) == []
