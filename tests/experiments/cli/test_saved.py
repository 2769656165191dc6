"""A workdir continues with the configuration it was started with, and with no other."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.cli import saved
from experiments.cli.configuration import ConfigurationError

STARTED = {
    "experiment": "experiments.digits",
    "seed": 0,
    "loss_weights": {"l2": 0.0001, "activity": 0.001},
    "sizes": [8, 16],
}


def changed(**changes):
    return {**STARTED, **changes}


@pytest.mark.parametrize(
    ("after", "overridden", "message"),
    [
        (
            changed(loss_weights={"l2": 0.0003, "activity": 0.001}),
            ["loss_weights.l2"],
            "runs/q1 was started with loss_weights.l2=0.0001, now 0.0003. "
            "Use a new --workdir, or drop the override to resume.",
        ),
        (
            changed(seed=1, sizes=[8]),
            ["seed", "sizes"],
            "runs/q1 was started with seed=0, now 1; with sizes=[8, 16], now [8]. "
            "Use a new --workdir, or drop the overrides to resume.",
        ),
        (
            changed(seed=1),
            [],
            "runs/q1 was started with seed=0, now 1. "
            "Use a new --workdir, or resume with --workdir=runs/q1 alone.",
        ),
        (
            changed(extra=None),
            [],
            "runs/q1 was started without extra, now null. ",
        ),
        (
            changed(loss_weights={"l2": 0.0001}),
            [],
            "runs/q1 was started with loss_weights.activity=0.001, now without it. ",
        ),
        (
            changed(experiment="experiments.consistency", seed=4),
            [],
            "runs/q1 was started with experiment=experiments.digits, now experiments.consistency. "
            "Use a new --workdir.",
        ),
        (
            changed(a=1, b=1, c=1, d=1, e=1),
            [],
            "runs/q1 was started without a, now 1; without b, now 1; without c, now 1; "
            "without d, now 1; and 1 more. ",
        ),
    ],
)
def test_another_configuration_is_refused_with_the_difference(after, overridden, message):
    with pytest.raises(ConfigurationError) as caught:
        saved.check_same("runs/q1", STARTED, after, overridden)
    assert str(caught.value).startswith(message)


def test_the_same_configuration_may_continue():
    saved.check_same("runs/q1", STARTED, json.loads(json.dumps(STARTED)), ["seed"])
    saved.check_same("runs/q1", {"rate": 1.0}, {"rate": 1}, [])


def test_true_is_not_one():
    assert saved.differences({"a": True, "b": [1]}, {"a": 1, "b": [True]}) == [
        ("a", True, 1),
        ("b", [1], [True]),
    ]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(values=st.dictionaries(st.text(max_size=3), PLAIN))
@settings(deadline=None)
def test_a_configuration_read_back_has_no_difference(values):
    assert saved.differences(values, json.loads(json.dumps(values))) == []


def test_a_workdir_without_a_run_has_no_configuration(tmp_path):
    assert saved.read(str(tmp_path)) is None
    assert saved.read(str(tmp_path / "nowhere")) is None
    (tmp_path / "file").touch()
    assert saved.read(str(tmp_path / "file" / "run")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON (line 1)"),
        ('{"seed": 0,\n', "is not JSON (line 2)"),
        ('{"rate": NaN}', "is not JSON (it holds NaN)"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "holds a list, not a configuration"),
        ('"x"', "holds a str, not a configuration"),
    ],
)
def test_an_edited_configuration_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        saved.read(str(tmp_path))
    assert f"{tmp_path}/config.json: " in str(caught.value)
    assert message in str(caught.value)


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        saved.read(str(tmp_path))
    (tmp_path / "run" / "config.json").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="Is a directory"):
        saved.read(str(tmp_path / "run"))


def test_a_workdir_is_checked_and_not_made(tmp_path):
    saved.check_workdir(str(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []


def test_a_workdir_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigurationError, match=r"--workdir=.*/file: is a file"):
        saved.check_workdir(str(file))
    with pytest.raises(ConfigurationError, match=r"cannot be made, .*/file is a file"):
        saved.check_workdir(str(file / "a" / "b"))
    # as root, who may run the tests, every directory can be written
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigurationError, match="no permission to write in"):
        saved.check_workdir(str(tmp_path / "a"))


def test_only_a_workdir_with_a_checkpoint_is_evaluated(tmp_path):
    with pytest.raises(ConfigurationError, match="needs --workdir=DIRECTORY"):
        saved.check_evaluable(None)
    with pytest.raises(ConfigurationError, match="holds no checkpoint"):
        saved.check_evaluable(str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-5.index").touch()
    saved.check_evaluable(str(tmp_path))


def test_what_stands_in_place_of_a_configuration_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigurationError, match=r"config.json: Is a named pipe\. Give another"):
        saved.read(str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"Is a link to 'nowhere', which is missing\. Giv"):
        saved.read(str(tmp_path / "run"))


@pytest.mark.parametrize("name", ["lr=[1e-3]", "a b", "größe", "st*r?", "back\\slash"])
def test_a_workdir_may_have_any_name(name, tmp_path):
    (tmp_path / name / "checkpoints").mkdir(parents=True)
    (tmp_path / name / "config.json").write_text('{"seed": 0}')
    (tmp_path / name / "checkpoints" / "ckpt-5.json").touch()
    assert saved.read(str(tmp_path / name)) == {"seed": 0}
    saved.check_workdir(str(tmp_path / name))
    saved.check_evaluable(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a" * 300, "link", "a\0b"])
def test_a_name_that_no_folder_can_have_is_refused(name, tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConfigurationError, match=r"^--workdir=.*\. Give a directory, new or of"):
        saved.check_workdir(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["link"]
