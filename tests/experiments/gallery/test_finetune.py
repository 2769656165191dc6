"""The gallery's fine-tuning, reduced: its weights, phases and rates are what the page says."""

import keras
import numpy as np
import pytest

import losses
from experiments.configs import finetune as config_file
from experiments.gallery import finetune


def made(workdir=None, **changes):
    config = config_file.get_config()
    config.update({"steps": 4, "log_every": 2, "validate_every": 4, "checkpoint_every": 4})
    config.update({"head_steps": 2, "pretraining_steps": 3, **changes})
    return finetune.experiment(config.lock(), strategy="one_device", workdir=workdir)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The experiment, its rows, and the backbone's first kernel as it was pre-trained and after
    each phase."""
    folder = tmp_path_factory.mktemp("run")
    experiment = made(folder)
    trainer, kernels = experiment.trainer, []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernels.append(trainer.model.get_layer("backbone").get_weights()[0])

    fit = {**experiment.fit, "validate_every": 2}
    rows = trainer.fit(experiment.train_data, verbose=False, callbacks=[Watch()], **fit).rows
    return experiment, rows, kernels, folder


def test_the_backbone_is_as_it_was_pretrained_until_the_second_phase(trained):
    experiment, rows, kernels, folder = trained
    assert [row["phase"] for row in rows] == ["head", "all"]
    before = finetune.Trainer(
        lambda: finetune.build_model(config_file.get_config()), optimizer="adam", loss="mse",
        workdir=folder / "pretrained", strategy="one_device",
    )  # fmt: skip
    x, y = experiment.train_data
    before.evaluate((x, keras.utils.to_categorical(y, 10)))
    pretrained = before.model.get_layer("backbone").get_weights()[0]
    np.testing.assert_array_equal(kernels[0], pretrained)
    assert np.abs(kernels[1] - pretrained).max() > 1e-5


def test_the_backbone_learns_at_a_tenth_of_the_rate_and_both_keep_averages(trained):
    optimizers = trained[0].trainer.optimizer
    rates = {name: float(each.learning_rate) for name, each in optimizers.items()}
    assert rates["backbone"] == pytest.approx(rates["head"] / 10)
    assert all(each.use_ema for each in optimizers.values())


def test_three_labels_of_each_digit_seen_by_a_bad_scanner(trained):
    x, y = trained[0].train_data
    assert np.bincount(y).tolist() == [3] * 10
    clean, labels = finetune.split_digits()["train"]
    dim = clean / 2 + 4
    for image, label in zip(x, y, strict=True):
        apart = np.abs(dim - image).mean((1, 2, 3))
        assert labels[apart.argmin()] == label and apart.min() < 2.2  # noise of 2 grey levels
    seen, _ = finetune.scanned((np.full((400, 8, 8, 1), 8.0), None), seed=0)
    assert seen.mean() == pytest.approx(8, abs=0.05) and seen.std() == pytest.approx(2, abs=0.05)


def test_the_check_is_the_accuracy_by_the_averages(trained):
    experiment = trained[0]
    x, y = experiment.test_data
    accuracy = np.mean(experiment.trainer.predict(x).argmax(-1) == y)
    (check,) = experiment.check(experiment.trainer).values()
    assert check.value == pytest.approx(accuracy, abs=1e-6) and check.at_least == finetune.LEAST
    titles = [axes.get_title() for axes in experiment.picture(experiment.trainer).axes]
    assert titles == [str(digit) for digit in experiment.trainer.predict(x[:36]).argmax(-1)]


def test_from_scratch_there_is_one_rate_and_no_phase():
    experiment = made(variant="scratch")
    rows = experiment.trainer.fit(experiment.train_data, verbose=False, **experiment.fit).rows
    assert "phase" not in rows[-1] and not isinstance(experiment.trainer.optimizer, dict)
    with pytest.raises(losses.TermwiseError, match="'none': accepted are"):
        made(variant="none")
