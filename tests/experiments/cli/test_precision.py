"""`--precision`: what it sets, where it is kept, and that training in it works."""

import json
import sys

import keras
import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments import run
from experiments.cli import precision
from experiments.cli.configuration import ConfigurationError
from experiments.configs import digits
from trainer import Trainer

EXPERIMENT = '''
"""A line through eight points; `made` keeps the layers' policies."""
import keras
import numpy as np
from experiments.experiment import Experiment
from trainer import Trainer

made = []


def experiment(config, *, strategy, workdir):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    trainer = Trainer(model, optimizer="adam", loss="mse", strategy="one_device",
                      workdir=workdir, config=config.to_dict())
    made.append((model.layers[0].dtype_policy.name, type(trainer.optimizer).__name__))
    if config.fails:
        raise ValueError("on purpose")
    x = np.linspace(-1, 1, 8, dtype="float32")[:, None]
    return Experiment(trainer, (x, 2 * x), fit={"steps": config.steps, "batch_size": 4})
'''

CONFIG = """
from ml_collections import ConfigDict
def get_config():
    return ConfigDict(dict(experiment="a_line", steps=2, fails=False{field}))
"""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The current directory has the experiment a_line; the list of what it has made."""
    (tmp_path / "a_line.py").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "without.py").write_text(CONFIG.format(field=""), encoding="utf-8")
    field = ', precision="mixed_bfloat16"'
    (tmp_path / "with_field.py").write_text(CONFIG.format(field=field), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    import a_line

    yield a_line.made
    sys.modules.pop("a_line", None)


def kept(workdir):
    with open(f"{workdir}/config.json", encoding="utf-8") as file:
        return json.load(file).get("precision")


def test_the_flag_sets_the_policy_of_the_layers_and_scales_the_loss_of_float16(made):
    for given in precision.PRECISIONS:
        assert run.main(["--config=without.py", f"--precision={given}"]) == 0
    assert run.main(["--config=without.py"]) == 0
    assert made == [
        ("float32", "Adam"),
        ("float64", "Adam"),
        ("mixed_float16", "LossScaleOptimizer"),
        ("mixed_bfloat16", "Adam"),
        ("float32", "Adam"),
    ]


def test_a_configuration_may_have_the_field_and_the_flag_wins(made):
    assert run.main(["--config=with_field.py"]) == 0
    assert run.main(["--config=with_field.py", "--config.precision=mixed_float16"]) == 0
    assert run.main(["--config=with_field.py", "--precision=float32"]) == 0
    assert [policy for policy, _ in made] == ["mixed_bfloat16", "mixed_float16", "float32"]


@pytest.mark.parametrize("fails", [False, True])
def test_the_policy_that_was_there_comes_back(made, fails):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        command = ["--config=without.py", "--precision=mixed_float16", f"--config.fails={fails}"]
        assert run.main(command) == (2 if fails else 0)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert run.main(["--config=without.py"]) == 0  # a program's own policy counts
    finally:
        keras.config.set_dtype_policy(before)
    assert [policy for policy, _ in made] == ["mixed_float16", "mixed_bfloat16"]


def test_a_run_is_continued_in_its_own_precision(made):
    assert run.main(["--config=without.py", "--workdir=q", "--precision=mixed_bfloat16"]) == 0
    assert kept("q") == "mixed_bfloat16"
    assert run.main(["--workdir=q"]) == 0
    assert [policy for policy, _ in made] == ["mixed_bfloat16"] * 2


@pytest.mark.parametrize(
    ("started", "further", "message"),
    [
        (
            ["--precision=mixed_float16"],
            ["--precision=mixed_bfloat16"],
            "q was started with precision=mixed_float16, now mixed_bfloat16. "
            "Use a new --workdir, or drop the override to resume.",
        ),
        (
            ["--precision=mixed_float16"],
            ["--config=without.py"],
            "q was started with precision=mixed_float16, now float32. "
            "Use a new --workdir, or resume with --workdir=q alone.",
        ),
        (
            [],
            ["--precision=mixed_float16"],
            "q was started with precision=float32, now mixed_float16. "
            "Use a new --workdir, or drop the override to resume.",
        ),
    ],
)
def test_a_run_is_not_continued_in_another_precision(made, started, further, message, capsys):
    assert run.main(["--config=without.py", "--workdir=q", *started]) == 0
    assert run.main(["--workdir=q", *further]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert len(made) == 1


def test_float32_and_no_field_are_the_same_run(made):
    assert run.main(["--config=without.py", "--workdir=q"]) == 0
    assert kept("q") is None
    assert run.main(["--workdir=q", "--precision=float32"]) == 0


def test_a_precision_that_is_not_there_is_refused(made, capsys):
    assert run.main(["--config=without.py", "--precision=mixed_float61"]) == 2
    assert capsys.readouterr().err == (
        "error: --precision=mixed_float61: accepted are float32, float64, mixed_float16, "
        "mixed_bfloat16. Did you mean mixed_float16?\n"
    )
    assert run.main(["--config=with_field.py", "--config.precision=half"]) == 2
    assert capsys.readouterr().err == (
        "error: --config.precision=half: accepted are float32, float64, mixed_float16, "
        "mixed_bfloat16.\n"
    )
    assert made == []


def test_a_field_of_another_kind_is_refused():
    with pytest.raises(ConfigurationError, match=r"--config.precision=16: accepted are float32"):
        precision.of({"precision": 16})
    with pytest.raises(ConfigurationError, match=r"--config.precision=mixed_float16"):
        precision.override(ConfigDict({"precision": 16}), "mixed_float16")


# ---- what a Trainer makes of the policy


@pytest.fixture
def policy():
    """A function that sets Keras's policy for the rest of the test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def one_weight(x, y, optimizer="sgd", initial=0.0, **arguments):
    """A Trainer of y ≈ w x, and its data: one example, w starting at 0."""
    kernel = keras.initializers.Constant(initial)
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer=kernel)
    model = keras.Sequential([keras.Input((1,)), layer])
    trainer = Trainer(model, optimizer=optimizer, loss="mse", strategy="one_device", **arguments)
    return trainer, (np.full([1, 1], x, "float32"), np.full([1, 1], y, "float32"))


@pytest.mark.parametrize("name", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_loss_is_scaled_where_compile_scales_it(policy, name):
    policy(name)
    trainer, _ = one_weight(1, 1, "adam")
    compiled = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    compiled.compile(optimizer="adam", loss="mse")
    assert type(trainer.optimizer) is type(compiled.optimizer)
    scales = isinstance(trainer.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scales == (name == "mixed_float16")


def test_an_optimizer_that_scales_by_itself_stays_as_it_is(policy):
    policy("mixed_float16")
    scaling = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=8.0)
    assert one_weight(1, 1, scaling)[0].optimizer is scaling
    fixed = keras.optimizers.SGD(0.1, loss_scale_factor=64.0)
    assert one_weight(1, 1, fixed)[0].optimizer is fixed


def test_a_gradient_too_large_for_float16_is_skipped_and_counted(policy):
    policy("mixed_float16")
    # d(16 - w)²/dw = -32 at w = 0. Times 2^15, 2^14, ..., 2^11 that is -65536 or beyond, and
    # float16 ends at 65504: five steps are skipped, each of which halves the scale to 2^10.
    trainer, data = one_weight(1, 16, keras.optimizers.SGD(0.125))
    history = trainer.fit(data, steps=7, batch_size=1, log_every=7, verbose=False)
    assert history.rows[-1]["skipped_steps"] == 5
    assert float(trainer.optimizer.dynamic_scale) == 2.0**10
    assert int(trainer.optimizer.iterations) == 2
    # w = 0 + 32/8 = 4, then 4 + 24/8 = 7: exact in float16
    np.testing.assert_array_equal(trainer.model.get_weights(), [[[7.0]]])
    assert history.rows[-1]["total"] == (16**2 + 12**2) / 2  # means of the steps that counted


def test_a_resumed_run_goes_on_with_the_scale_it_had(policy, tmp_path):
    policy("mixed_float16")

    def train(workdir, *ends):
        for end in ends:
            trainer, data = one_weight(1, 16, keras.optimizers.Adam(0.1), workdir=workdir)
            trainer.fit(data, steps=end, batch_size=1, verbose=False)
        return trainer.model.get_weights()[0], float(trainer.optimizer.dynamic_scale)

    straight, scale = train(tmp_path / "straight", 12)
    resumed, scale_after = train(tmp_path / "resumed", 3, 12)  # in the middle of the skipped ones
    assert scale == scale_after == 2.0**10
    np.testing.assert_array_equal(resumed, straight)


def trained_classifier(strategy):
    """The weights after 20 steps of a small network on 60 points in batches of 15."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)).astype("float32")
    y = np.argmax(x[:, :3], axis=1)

    def build():
        keras.utils.set_random_seed(1)
        return keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(16, activation="tanh"),
                keras.layers.Dense(3, dtype="float32"),
            ]
        )

    trainer = Trainer(
        build,
        optimizer=keras.optimizers.SGD(0.1),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        strategy=strategy,
    )
    history = trainer.fit((x, y), steps=20, batch_size=15, log_every=20, verbose=False)
    return trainer.model.get_weights(), history.rows[-1]["total"]


@pytest.mark.parametrize(("name", "bits"), [("mixed_bfloat16", 8), ("mixed_float16", 11)])
def test_two_replicas_train_as_one_within_the_precision(policy, two_replicas, name, bits):
    policy(name)
    one, total = trained_classifier("one_device")
    two, total_of_two = trained_classifier(two_replicas)
    rounding = 2.0**-bits  # of one number; every step rounds every gradient
    largest = max(np.abs(weights).max() for weights in one)
    for ours, theirs in zip(two, one, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounding * largest)
    assert total_of_two == pytest.approx(total, rel=rounding)


@pytest.mark.very_slow
def test_the_quickstart_is_as_accurate_in_every_precision(tmp_path, capfd):
    accuracy = {}
    for given in precision.PRECISIONS:
        workdir = tmp_path / given
        command = [f"--config={digits.__file__}", f"--workdir={workdir}"]
        command += ["--strategy=one_device", "--config.steps=300", f"--precision={given}"]
        assert run.main(command) == 0
        rows = list(map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()))
        assert all(np.isfinite(row["total"]) for row in rows)
        accuracy[given] = rows[-1]["metrics/digit_accuracy"]
        capfd.readouterr()
    assert accuracy["float32"] > 0.96
    assert accuracy == pytest.approx(dict.fromkeys(accuracy, accuracy["float32"]), abs=0.015)
    assert keras.config.dtype_policy().name == "float32"
