"""The recall of a digit under a constraint; the table of docs/constraints.md holds the rest."""

import pytest

from tests.trainer.balancing.digit_recall import LEAST, by_constraint, train


@pytest.mark.very_slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_recall_of_the_eights_is_at_least_what_the_constraint_says(seed):
    training, *_ = train(seed, [by_constraint(0.0)])
    plain, *_ = train(seed, [])
    assert training.recall >= LEAST > plain.recall + 0.05
    assert training.accuracy > plain.accuracy - 0.04
