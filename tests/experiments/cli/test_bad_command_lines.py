"""Files and values that a command line leads to: whatever they hold, a line or two and exit 2."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import program, run
from experiments.cli import configuration

ROOT = Path(__file__).resolve().parents[3]
DIGITS = f"--config={ROOT}/experiments/configs/digits.py"
HEAD = "from ml_collections import ConfigDict, config_dict\n"

SOURCES = {
    "recursive.py": "def get_config():\n    return get_config()",
    "exits.py": "import sys\nsys.exit('enough')",
    "interrupts.py": "raise KeyboardInterrupt",
    "warns.py": "import warnings\nwarnings.warn('old', DeprecationWarning)\n"
    "def get_config():\n    return {'experiment': 'no.such'}",
    "cyclic.py": HEAD + "def get_config():\n    c = ConfigDict()\n    c.again = c\n    return c",
    "deep.py": "def get_config():\n    c = {}\n    for _ in range(3000):\n"
    "        c = {'a': c}\n    return c",
    "deep_list.py": "def get_config():\n    c = []\n    for _ in range(3000):\n"
    "        c = [c]\n    return {'experiment': 'experiments.digits', 'x': c}",
    "numbered.py": "def get_config():\n    return {1: 2}",
    "dotted.py": "def get_config():\n    return {'a.b': 2}",
    "surrogate.py": "def get_config():\n    return {'a\\udcff': print}",
    "lines.py": "def get_config():\n    raise ValueError('a\\n' * 500)",
    "silent.py": "def get_config():\n    raise ValueError",
    "unprintable.py": "class E(Exception):\n    def __str__(self):\n        raise OSError\n"
    "def get_config():\n    raise E",
    "numbers.py": "def get_config():\n    return {'experiment': 3}",
    "required.py": HEAD + "def get_config():\n"
    "    return ConfigDict({'size': config_dict.required_placeholder(int)})",
    "bytes.py": "def get_config():\n    return {'x': b'bytes'}",
    "huge.py": "def get_config():\n    return {'x': 1e400}",
    "typed.py": "def get_config():\n"
    "    return {'experiment': 'experiments.digits', 'n': 1, 'r': 0.5,"
    " 'on': True, 'sizes': (1, 2), 'any': None, 'text': 'a', 'table': {'a': 1}, 'empty': {}}",
}

SAVED = {
    "bom": b'\xef\xbb\xbf{"seed": 0}',
    "utf16": '{"seed": 0}'.encode("utf-16"),
    "digits": b'{"seed": ' + b"9" * 5000 + b"}",
    "nested": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "string": b'"experiments.digits"',
    "null": b"null",
    "two": b'{"seed": 0}{"seed": 1}',
    "comment": b'{"seed": 0} // mine',
    "infinite": b'{"seed": Infinity}',
    "unnamed": b'{"": 1, "experiment": "experiments.digits"}',
    "nowhere": b'{"experiment": null}',
    "listed": b'{"experiment": ["experiments.digits"]}',
    "relative": b'{"experiment": ".digits"}',
    "missing": b'{"experiment": "experiments.nothing"}',
    "code": b'{"experiment": "os;import sys"}',
    "called": b"{\"experiment\": \"__import__('os').system('touch ran')\"}",
}

BAD = [
    # the configuration file
    (["--config=recursive.py"], "--config=recursive.py: line 2, RecursionError: "),
    (["--config=exits.py"], "--config=exits.py: line 2, SystemExit: enough"),
    (["--config=cyclic.py"], "The configuration holds itself, or is nested too deeply."),
    (["--config=deep.py"], "--config=deep.py: get_config() returned what no ConfigDict can hold"),
    (["--config=deep_list.py"], "The configuration holds itself, or is nested too deeply."),
    (["--config=numbered.py"], "Configuration field 1: its name is a int. Use a string."),
    (["--config=dotted.py"], "dots in field names"),
    (["--config=surrogate.py"], "which config.json cannot hold"),
    (["--config=lines.py"], "--config=lines.py: line 2, ValueError: a a a"),
    (["--config=silent.py"], "--config=silent.py: line 2, ValueError"),
    (["--config=unprintable.py"], "--config=unprintable.py: line 5, E"),
    (["--config=numbers.py"], "--config.experiment: is 3. Give the module"),
    (["--config=required.py"], "--config.size: required and not given. Add --config.size="),
    (["--config=required.py", "--config.size=x"], "--config.size=x: accepted: an integer."),
    (["--config=bytes.py"], "Configuration field x is a bytes, which config.json cannot hold."),
    (["--config=huge.py"], "Configuration field x is inf, which JSON has no form for."),
    (["--config=loop"], "--config=loop: Too many levels of symbolic links. Give a Python file."),
    (["--config=typed.py/"], "--config=typed.py/: Not a directory. Give a Python file."),
    (["--config=typed.py", "--config=missing.py"], "--config=missing.py: no such file."),
    # the values of its fields
    (["--config=typed.py", "--config.n=True"], "--config.n=True: accepted: an integer."),
    (["--config=typed.py", "--config.n=" + "9" * 5000], ": accepted: an integer."),
    (["--config=typed.py", "--config.n=0x10"], "--config.n=0x10: accepted: an integer."),
    (["--config=typed.py", "--config.r=1e999"], "--config.r=1e999: accepted: a finite number."),
    (["--config=typed.py", "--config.r=1,5"], "--config.r=1,5: accepted: a finite number."),
    (["--config=typed.py", "--config.on=yes"], "--config.on=yes: accepted: true or false."),
    (["--config=typed.py", "--config.sizes=(1, 2"], "--config.sizes=(1, 2: accepted: a tuple"),
    (["--config=typed.py", "--config.sizes=" + "(" * 3000], ": accepted: a tuple such as"),
    (["--config=typed.py", "--config.sizes=[1, None]"], "None is not like the items of the def"),
    (["--config=typed.py", "--config.any={1, 2}"], "a set cannot be saved. Accepted: numbers,"),
    (["--config=typed.py", "--config.any={1: 2}"], "the key 1 is not a string."),
    (["--config=typed.py", "--config.any=1j"], "a complex cannot be saved."),
    (["--config=typed.py", "--config.table=1"], "--config.table: is a section. Set one of its"),
    (["--config=typed.py", "--config.table.a=x"], "--config.table.a=x: accepted: an integer."),
    (["--config=typed.py", "--config.table.b=1"], "no such field. There are: table.a."),
    (["--config=typed.py", "--config.empty=1"], "--config.empty: is a section"),
    (["--config=typed.py", "--config.n.n=1"], "--config.n.n: no such field."),
    (["--config=typed.py", "--config.größe=1"], "--config.größe: no such field."),
    (["--config=typed.py", "--config.__class__=1"], "--config.__class__: no such field."),
    (["--config=typed.py", "--config.items=1"], "--config.items: no such field."),
    # what a workdir holds
    (["--workdir=saved/bom"], "saved/bom/config.json: is not JSON ("),
    (["--workdir=saved/utf16"], "saved/utf16/config.json: is not UTF-8 text."),
    (["--workdir=saved/digits"], "saved/digits/config.json: is not JSON ("),
    (["--workdir=saved/nested"], "saved/nested/config.json: is not JSON ("),
    (["--workdir=saved/string"], "saved/string/config.json: holds a str, not a configuration."),
    (["--workdir=saved/null"], "saved/null/config.json: holds a NoneType, not a configuration."),
    (["--workdir=saved/two"], "saved/two/config.json: is not JSON (line 1)."),
    (["--workdir=saved/comment"], "saved/comment/config.json: is not JSON (line 1)."),
    (["--workdir=saved/infinite"], "is not JSON (it holds Infinity)."),
    (["--workdir=saved/nowhere"], "--config.experiment: is not set."),
    (["--workdir=saved/listed"], "--config.experiment: is ['experiments.digits']. Give the mod"),
    (["--workdir=saved/relative"], "--config.experiment: is '.digits'. Give the module"),
    (["--workdir=saved/missing"], "--config.experiment: no module named experiments.nothing."),
    (["--workdir=saved/code"], "--config.experiment: is 'os;import sys'. Give the module"),
    (["--workdir=saved/called"], '--config.experiment: is "__import__('),
    (["--workdir=loop"], "loop/config.json: Too many levels of symbolic links. Give another"),
    (["--workdir=" + "x" * 5000], "xxx"),
    (["--workdir=typed.py/../q1", "--config=typed.py"], "--workdir=typed.py/../q1"),
]  # fmt: skip


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A current directory with `SOURCES`, a workdir for each of `SAVED`, and a link to itself."""
    for name, source in SOURCES.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    for name, saved in SAVED.items():
        (tmp_path / "saved" / name).mkdir(parents=True)
        (tmp_path / "saved" / name / "config.json").write_bytes(saved)
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(program, "start_tensorflow", lambda devices: pytest.fail("it started"))
    return tmp_path


def assert_one_error(err):
    assert err.startswith("error: ")
    assert 1 <= len(err.splitlines()) <= 2
    assert len(err) < 1000


@pytest.mark.parametrize(("argv", "words"), BAD, ids=[str(n) for n in range(len(BAD))])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whatever_a_file_holds_it_is_a_line_or_two(files, capsys, argv, words):
    before = contents(files)
    assert run.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert_one_error(err)
    assert words in err
    assert contents(files) == before


def test_a_configuration_that_is_interrupted_exits_130(files, capsys):
    assert run.main(["--config=interrupts.py"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


# Fuzzing.

TEXT = st.text(max_size=12) | st.sampled_from(["", "\x00", "\n", "a.b", "__class__", "\udcff", "é"])
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**30, max_value=10**60)
    | st.floats()
    | TEXT
)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CONFIG = st.dictionaries(TEXT | st.sampled_from(["experiment", "steps", "items", "lock"]), VALUE)
# what is typed for a value: any text, numbers of any size, brackets that need not close
TYPED = (
    st.text(max_size=20)
    | SCALAR.map(repr)
    | VALUE.map(repr)
    | st.from_regex(r"[-+]?[0-9]{1,40}(\.[0-9]{0,4})?([eE][-+]?[0-9]{1,5})?", fullmatch=True)
    | st.lists(st.sampled_from("()[]{},:'\"0a ."), max_size=40).map("".join)
    | st.sampled_from(["(", "[", "{", "-", "~"]).map(lambda bracket: bracket * 400)
)
FUZZ = settings(
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def answer(argv, monkeypatch, capsys):
    """What the program does up to the experiment, which is read and not run."""

    def read(command, resolved):
        json.dumps(resolved, allow_nan=False)
        with program.user_errors():
            configuration.from_plain(resolved)
        return 0

    monkeypatch.setattr(program, "carry_out", read)
    capsys.readouterr()
    code = run.main(argv)
    out, err = capsys.readouterr()
    assert code in (0, 2)
    if code == 2:
        assert out == ""
        assert_one_error(err)
    return code


@given(values=CONFIG)
@FUZZ
def test_whatever_a_saved_configuration_holds(values, files, monkeypatch, capsys):
    file = files / "saved" / "null" / "config.json"
    file.write_text(json.dumps({"experiment": "experiments.digits", **values}), encoding="utf-8")
    before = contents(files)
    answer(["--workdir=saved/null"], monkeypatch, capsys)
    assert contents(files) == before


@given(raw=st.binary(max_size=60) | TYPED.map(lambda text: text.encode("utf-8", "surrogatepass")))
@FUZZ
def test_whatever_bytes_a_saved_configuration_is_made_of(raw, files, monkeypatch, capsys):
    (files / "saved" / "null" / "config.json").write_bytes(raw)
    before = contents(files)
    answer(["--workdir=saved/null"], monkeypatch, capsys)
    assert contents(files) == before


@given(values=CONFIG)
@FUZZ
def test_whatever_a_configuration_file_returns(values, files, monkeypatch, capsys):
    source = f"nan, inf = float('nan'), float('inf')\ndef get_config():\n    return {values!r}"
    (files / "typed.py").write_text(source, encoding="utf-8", errors="backslashreplace")
    before = contents(files)
    answer(["--config=typed.py", "--workdir=q1"], monkeypatch, capsys)
    assert contents(files) == before


@given(
    name=st.sampled_from(["n", "r", "on", "sizes", "any", "text", "table.a", "experiment"])
    | st.lists(TEXT, max_size=3).map(".".join),
    text=TYPED,
)
@FUZZ
def test_whatever_is_typed_for_a_field(name, text, files, monkeypatch, capsys):
    before = contents(files)
    argument = f"--config.{name}={text}"
    answer(["--config=typed.py", argument], monkeypatch, capsys)
    assert contents(files) == before


@given(argv=st.lists(TYPED | st.builds("--{}={}".format, TEXT, TYPED), max_size=4))
@FUZZ
def test_whatever_is_typed_without_a_field(argv, files, monkeypatch, capsys):
    before = contents(files)
    argv = [argument for argument in argv if not argument.startswith("--traceback")]
    answer(argv, monkeypatch, capsys)
    assert contents(files) == before
