"""What is typed wrong is answered in a line or two, with exit code 2, and nothing is written."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import program, run
from experiments.cli.command_line import Command, parse
from experiments.cli.configuration import ConfigurationError

ROOT = Path(__file__).resolve().parents[3]
DIGITS = f"--config={ROOT}/experiments/configs/digits.py"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# What is understood.


def test_flags_and_overrides_are_told_apart():
    command = parse(
        [
            "--config=a.py",
            "--workdir",
            "runs/q1",
            "--config.optimizer.learning_rate=3e-4",
            "-config.name=a=b",
            "--virtual_devices=2",
            "--strategy=mirrored",
        ]
    )
    assert command == Command(
        config="a.py",
        workdir="runs/q1",
        overrides=(("optimizer.learning_rate", "3e-4"), ("name", "a=b")),
        strategy="mirrored",
        virtual_devices=2,
    )


def test_a_command_of_nothing_has_the_defaults():
    assert parse([]) == Command(mode="train", strategy="auto")


def test_a_path_below_home_is_understood(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert parse(["--workdir=~/runs/q1"]).workdir == "/home/ada/runs/q1"


@pytest.mark.parametrize("flag", ["--help", "-h", "--h"])
def test_help_is_shown_and_exits_0(flag, folder, capsys):
    assert run.main([flag]) == 0
    shown = capsys.readouterr().out
    for word in ("--config=FILE", "--workdir=", "--mode=", "--strategy=", "--virtual_devices=N"):
        assert word in shown
    assert contents(folder) == {}


def test_help_of_a_configuration_lists_its_fields(capsys):
    assert run.main([DIGITS, "--help"]) == 0
    assert "--config.optimizer.learning_rate=0.003\n" in capsys.readouterr().out


# What is not.

BAD = [
    # nothing to do
    ([], "neither --config nor --workdir is given. Give --config=FILE to start a run"),
    (["--workdir=nowhere"], "--workdir=nowhere: has no config.json, so no run was started there."),
    (["--workdir=empty"], "--workdir=empty: has no config.json"),
    # flags
    (["--confg=a.py"], "--confg: no such flag. Did you mean --config?"),
    (["--work_dir=runs"], "--work_dir: no such flag. Did you mean --workdir?"),
    (["--xyzzy"], "--xyzzy: no such flag. There are: --config, "),
    (["--steps=5"], "--steps: no such flag."),
    (["--nomode"], "--nomode: no such flag."),
    (["--flagfile=flags.txt"], "--flagfile: no such flag."),
    (["--undefok=x", "--x=1"], "--undefok: no such flag."),
    (["--workdir"], "--workdir: has no value. Write --workdir=VALUE."),
    (["--workdir="], "--workdir=: is empty. Give a path."),
    (["--workdir=a\nb"], r"'--workdir=a\nb': holds a control character. Give a path on one line."),
    (["--config="], "--config=: is empty. Give a path."),
    (["stray"], "stray: stray argument. Every argument is --name=value"),
    ([DIGITS, "train"], "train: stray argument."),
    (["-"], "-: stray argument."),
    ([DIGITS, "--", "--mode=train"], "--mode=train: stray argument."),
    (["--config.seed", "3", DIGITS], "--config.seed: has no value. Write --config.seed=VALUE."),
    (["--mode=trian"], "describe, replay, examples. Did you mean train?"),
    (["--mode=Train"], "Train: accepted are train, evaluate, describe, replay, examples. Did"),
    (["--mode="], "--mode=: accepted are train, evaluate, describe, replay, examples."),
    (["--strategy=tpu"], "--strategy=tpu: accepted are auto, one_device, mirrored, multi_worker."),
    (["--strategy=mirored"], "--strategy=mirored: accepted are auto, one_device, mirrored, multi_"),
    (["--virtual_devices=-1"], "--virtual_devices=-1: accepted is a number of devices, 1 to 64."),
    (["--virtual_devices=0"], "--virtual_devices=0: accepted is a number of devices, 1 to 64."),
    (["--virtual_devices=two"], "--virtual_devices=two: accepted is a number of devices"),
    (["--virtual_devices=1e9"], "--virtual_devices=1e9: accepted is a number of devices"),
    (["--traceback=7"], "--traceback=7: accepted are true and false."),
    (["--workdir=a\0b"], "'--workdir=a\\x00b': is not text."),
    (["--workdir=\udcff"], "'--workdir=\\udcff': is not text."),
    # the configuration file
    (["--config=missing.py"], "--config=missing.py: no such file. There are: broken.py, hollow.py"),
    (["--config=brokn.py"], "--config=brokn.py: no such file. Did you mean broken.py?"),
    (["--config=empty"], "--config=empty: is a directory. Give one Python file."),
    (["--config=broken.py"], "--config=broken.py: line 1 invalid syntax."),
    (["--config=hollow.py"], "--config=hollow.py: has no get_config()."),
    (["--config=raises.py"], "--config=raises.py: line 2, KeyError: 'a'"),
    (["--config=none.py"], "--config=none.py: get_config() returned NoneType."),
    (["--config=unsaved.py"], "Configuration field loss is a builtin_function_or_method"),
    (["--config=" + "x" * 5000], "xxx: File name too long."),
    # its fields
    ([DIGITS, "--config.loss_weights.l3=1"], "--config.loss_weights.l3: no such field. Did you"),
    ([DIGITS, "--config.=1"], "--config.: no such field. There are: "),
    ([DIGITS, "--config.optimizer=adam"], "--config.optimizer: is a section. Set one of its"),
    ([DIGITS, "--config.steps=many"], "--config.steps=many: accepted: an integer."),
    ([DIGITS, "--config.steps=1.5"], "--config.steps=1.5: accepted: an integer."),
    ([DIGITS, "--config.model.channels=8"], "--config.model.channels=8: accepted: a tuple such"),
    ([DIGITS, "--config.model.channels=(8, 'a')"], "(8, 'a'): 'a' is not like the items of the"),
    ([DIGITS, "--config.loss_weights.l2=nan"], "--config.loss_weights.l2=nan: accepted: a finite"),
    # the experiment
    (["--config=no_name.py"], "--config.experiment: is not set. Give the module that defines"),
    ([DIGITS, "--config.experiment="], "--config.experiment: is ''. Give the module"),
    ([DIGITS, "--config.experiment=../x"], "--config.experiment: is '../x'. Give the module"),
    ([DIGITS, "--config.experiment=no.such"], "--config.experiment: no module named no.such."),
    ([DIGITS, "--config.experiment=experiments.digit"], "Did you mean experiments.digits?"),
    # the workdir
    ([DIGITS, "--workdir=broken.py"], "--workdir=broken.py: is a file. Give a directory"),
    ([DIGITS, "--workdir=broken.py/q1"], "--workdir=broken.py/q1: cannot be made, broken.py is a"),
    ([DIGITS, "--workdir=torn"], "torn/config.json: is not JSON (line 1)."),
    (["--workdir=list"], "list/config.json: holds a list, not a configuration."),
    (["--workdir=dotted"], "ConfigDict does not accept dots in field names"),
    ([DIGITS, "--workdir=other"], "other was started with experiment=experiments.other, now exper"),
    (["--workdir=changed", "--config.seed=6"], "changed was started with seed=5, now 6. Use a "),
    (["--workdir=changed", "--config.step=6"], "--config.step: no such field. Did you mean steps?"),
    (["--workdir=inside"], "--config.experiment: inside.code lies in the workdir inside, and"),
    # modes
    ([DIGITS, "--mode=evaluate"], "--mode=evaluate: needs --workdir=DIRECTORY, of a run that was"),
    (["--workdir=changed", "--mode=evaluate"], "--mode=evaluate: changed holds no checkpoint."),
    (["--workdir=changed", "--mode=examples"], "--mode=examples: changed holds no checkpoint."),
    ([DIGITS, "--mode=examples"], "--mode=examples: needs --workdir=DIRECTORY, of a run that was"),
]  # fmt: skip


@pytest.fixture
def mistakes(folder):
    """A current directory with broken files and workdirs of every kind."""
    for name, source in {
        "broken.py": "def get_config(:",
        "hollow.py": "x = 1",
        "raises.py": "def get_config():\n    return {}['a']",
        "none.py": "def get_config():\n    pass",
        "unsaved.py": "def get_config():\n    return {'loss': print}",
        "no_name.py": "def get_config():\n    return {}",
        "torn/config.json": '{"seed": ',
        "list/config.json": "[1]",
        "dotted/config.json": '{"a.b": 1}',
        "other/config.json": '{"experiment": "experiments.other"}',
        "changed/config.json": '{"experiment": "experiments.digits", "steps": 5, "seed": 5}',
        "inside/config.json": '{"experiment": "inside.code"}',
        "inside/code.py": "raise SystemExit('this was run')",
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_a_mistake_is_a_line_or_two(mistakes, monkeypatch, capsys, argv, message):
    monkeypatch.setattr(program, "start_tensorflow", lambda devices: pytest.fail("it started"))
    monkeypatch.syspath_prepend(str(mistakes))
    before = contents(mistakes)
    assert run.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert 1 <= len(err.splitlines()) <= 2
    assert contents(mistakes) == before


def test_a_workdir_without_permission_is_refused(folder, monkeypatch, capsys):
    # as root, who may run the tests, every directory can be written
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert run.main([DIGITS, "--workdir=runs/q1"]) == 2
    assert "--workdir=runs/q1: no permission to write in ." in capsys.readouterr().err


def test_a_traceback_is_shown_when_asked_for(folder, capsys):
    assert run.main(["--config=missing.py", "--traceback"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert "error: --config=missing.py: no such file." in shown


def test_a_mistake_is_answered_before_tensorflow_is_imported():
    program = (
        "import sys; from experiments.run import main; code = main(sys.argv[1:]); "
        "assert not {'tensorflow', 'keras'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, DIGITS, "--config.experiment=experiments.digit"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: --config.experiment: no module named experiments.digit. "
        "Did you mean experiments.digits?\n",
    )


@pytest.mark.parametrize("argument", ["--confg=3", "stray"])
def test_the_program_exits_2(argument):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", argument],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")


WORDS = st.sampled_from(
    [
        *["--config", "--workdir", "--mode", "--strategy", "--virtual_devices", "--traceback"],
        *["--help", "-h", "--", "-", "--config.", "--config.seed", "--config.loss_weights.l2"],
        *["=", "=train", "=mirrored", "=2", "=broken.py", "=torn", "=none.py", DIGITS],
    ]
)
ARGUMENT = st.lists(WORDS | st.text(max_size=8), min_size=1, max_size=4).map("".join)


@given(argv=st.lists(ARGUMENT | st.just(DIGITS), max_size=5))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None
)
def test_whatever_is_typed_is_understood_or_answered(mistakes, monkeypatch, capsys, argv):
    monkeypatch.setattr(program, "carry_out", lambda command, resolved: 0)
    before = contents(mistakes)
    code = run.main([argument for argument in argv if argument != "--traceback"])
    err = capsys.readouterr().err
    assert code in (0, 2)
    if code == 2:
        errors = err[err.index("error: ") :] if err.startswith("Traceback") else err
        assert errors.startswith("error: ")
        assert 1 <= len(errors.splitlines()) <= 2
    assert contents(mistakes) == before


def test_an_interrupted_run_exits_130(monkeypatch, capsys):
    def interrupted(command, resolved):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "carry_out", interrupted)
    assert run.main([DIGITS]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_configuration_error_is_a_value_error():
    assert issubclass(ConfigurationError, ValueError)


# The steps of a profile.


def test_the_steps_of_a_profile_are_two_numbers():
    assert parse(["--profile_steps=10,20"]).profile_steps == (10, 20)
    assert parse([]).profile_steps is None


@pytest.mark.parametrize(
    "text", ["10", "20,10", "10,10", "a,b", "10,20,30", "-1,5", "1.5,2", "1, 2"]
)
def test_what_is_no_range_of_steps_is_told(text):
    with pytest.raises(ConfigurationError, match=r"accepted are two steps, A,B with A below B\."):
        parse([f"--profile_steps={text}"])


@pytest.mark.parametrize("more", [[], ["--workdir=w", "--mode=describe"]])
def test_a_profile_without_a_run_to_keep_is_told(folder, capsys, more):
    assert run.main([DIGITS, "--profile_steps=10,20", *more]) == 2
    assert capsys.readouterr().err == (
        "error: --profile_steps: goes with --mode=train and --workdir=DIRECTORY.\n"
    )
    assert not contents(folder)
