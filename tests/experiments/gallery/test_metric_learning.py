"""The gallery's metric learning, reduced: recall@1 by hand, unseen digits, each loss for a step."""

import numpy as np
import pytest

import losses
from experiments.configs import metric_learning as config_file
from experiments.gallery import metric_learning


def made(**changes):
    config = config_file.get_config()
    config.update({"steps": 2, "log_every": 1, "validate_every": 2, "checkpoint_every": 2})
    config.update({"batch_size": 24, **changes})
    return metric_learning.experiment(config.lock(), strategy="one_device", workdir=None)


def trained(variant):
    experiment = made(variant=variant)
    rows = experiment.trainer.fit(experiment.train_data, verbose=False, **experiment.fit).rows
    return experiment, rows


def test_recall_by_hand():
    """On a line at 0, 1, 3, 3.5: the nearest are 1, 0, 3.5, 3."""
    places = np.array([[0.0], [1.0], [3.0], [3.5]])
    assert metric_learning.recall_at_1(places, np.array([0, 0, 1, 1])) == 1.0
    assert metric_learning.recall_at_1(places, np.array([0, 1, 1, 1])) == 0.5


@pytest.mark.parametrize(
    "variant, term", [("sup_con", "sup_con"), ("triplet", "triplet"), ("nt_xent", "nt_xent")]
)
def test_each_loss_trains_and_the_check_looks_at_unseen_digits_alone(variant, term):
    experiment, rows = trained(variant)
    assert np.isfinite(rows[-1][f"raw/{term}"])
    assert not set(experiment.train_data[1]) & set(metric_learning.UNSEEN)
    x, y = metric_learning.unseen(metric_learning.split_digits()["test"])
    assert set(y) == set(metric_learning.UNSEEN) and len(y) > 100
    embeddings = experiment.trainer.model.predict(x, verbose=0)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    (check,) = experiment.check(experiment.trainer).values()
    nearest = [np.argsort(np.square(embeddings - e).sum(1))[1] for e in embeddings]
    assert check.value == pytest.approx(np.mean(y[nearest] == y))
    assert check.at_least == 0.95


def test_untrained_stays_as_it_was_and_its_picture_shows_the_unseen_digits():
    experiment, _ = trained("untrained")
    before = made(variant="untrained")
    before.trainer.build(before.train_data, **before.batch)
    for one, other in zip(
        experiment.trainer.model.get_weights(), before.trainer.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    (axes,) = experiment.picture(experiment.trainer).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == [str(digit) for digit in metric_learning.UNSEEN]
    assert sum(len(points.get_offsets()) for points in axes.collections) > 100


def test_another_variant_is_refused():
    with pytest.raises(losses.TermwiseError, match="'none': accepted are"):
        made(variant="none")
