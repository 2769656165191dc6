"""A configuration is loaded, overridden and resolved; what is wrong with it is said in a line."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict, FrozenConfigDict, config_dict

from experiments.cli import configuration
from experiments.cli.configuration import ConfigurationError
from experiments.configs import digits


@pytest.fixture
def config():
    return ConfigDict(
        {
            "seed": 0,
            "name": "first",
            "clip": None,
            "sizes": (8, 16),
            "shuffle": True,
            "optimizer": {"learning_rate": 1e-3, "name": "adam"},
            "loss_weights": {"l2": 1e-4, "activity": 1e-3},
        }
    ).lock()


@pytest.fixture
def file(tmp_path):
    """A function that writes a configuration file and gives its path."""

    def write(source):
        path = tmp_path / "my_config.py"
        path.write_text(source, encoding="utf-8")
        return str(path)

    return write


# Loading.


def test_a_file_gives_what_its_get_config_returns(file):
    path = file(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n    return ConfigDict({'seed': 3, 'file': __file__})"
    )
    config = configuration.load(path)
    assert config.seed == 3
    assert config.file == path


@pytest.mark.parametrize("kind", ["dict", "FrozenConfigDict"])
def test_a_dict_or_a_frozen_one_is_a_configuration_too(file, kind):
    path = file(
        "from ml_collections import FrozenConfigDict\n"
        f"def get_config():\n    return {kind}({{'a': {{'b': 1}}}})"
    )
    config = configuration.load(path)
    configuration.override(config, "a.b", "2")
    assert config.a.b == 2
    assert not isinstance(config, FrozenConfigDict)


def test_loading_writes_nothing(file, tmp_path):
    configuration.load(file("def get_config():\n    return {}"))
    assert [path.name for path in tmp_path.rglob("*")] == ["my_config.py"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def get_config(:", "line 1 invalid syntax"),
        ("\n\ndef get_config():\n    return 1 +", "line 4 invalid syntax"),
        ("import no_such_module", "line 1, ModuleNotFoundError: No module named"),
        ("def get_config():\n    return {}['a']", "line 2, KeyError: 'a'"),
        ("def get_config():\n    raise ValueError('one\\ntwo')", "line 2, ValueError: one two"),
        ("raise SystemExit(3)", "line 1, SystemExit: 3"),
        ("config = {}", "has no get_config(). Define one that returns an ml_collections"),
        ("get_config = {}", "has no get_config()."),
        ("def get_config():\n    pass", "get_config() returned NoneType. Return an ml_coll"),
        ("def get_config():\n    return [1]", "get_config() returned list."),
        ("def get_config(size):\n    return {}", "TypeError: get_config() missing 1 required"),
        ("x = '\0'", "null bytes"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(file, source, message):
    path = file(source)
    with pytest.raises(ConfigurationError) as caught:
        configuration.load(path)
    assert str(caught.value).startswith(f"--config={path}:")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line_with_the_nearest(file, tmp_path):
    file("")
    with pytest.raises(ConfigurationError, match=r"no such file\. Did you mean .*my_config\.py\?"):
        configuration.load(str(tmp_path / "my_confg.py"))
    with pytest.raises(ConfigurationError, match=r"no such file\.$"):
        configuration.load(str(tmp_path / "nowhere" / "my_config.py"))
    with pytest.raises(ConfigurationError, match=r"is a directory.*There are: .*my_config\.py\."):
        configuration.load(str(tmp_path))


def test_a_file_that_is_not_text_is_one_line(tmp_path):
    path = tmp_path / "config.py"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        configuration.load(str(path))


# Overriding.


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("seed", "7", 7),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.name", "3", "3"),
        ("sizes", "(4,)", (4,)),
        ("shuffle", "false", False),
        ("clip", "0.5", 0.5),
        ("clip", "norm", "norm"),
    ],
)
def test_an_override_sets_the_field_in_its_type(config, name, text, value):
    configuration.override(config, name, text)
    assert config[name] == value
    assert type(config[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("loss_weights.l3", "1", "--config.loss_weights.l3: no such field. "
         "Did you mean loss_weights.l2?"),
        ("sed", "1", "--config.sed: no such field. Did you mean seed?"),
        ("learning_rate", "1", "--config.learning_rate: no such field. "
         "Did you mean optimizer.learning_rate?"),
        ("optimiser.learning_rate", "1", "--config.optimiser.learning_rate: no such field. "
         "Did you mean optimizer.learning_rate?"),
        ("seed.x", "1", "--config.seed.x: no such field. "),
        ("loss_weights.zzzzzz", "1", "--config.loss_weights.zzzzzz: no such field. "
         "There are: loss_weights.activity, loss_weights.l2."),
        ("", "1", "--config.: no such field. "),
        ("optimizer.", "1", "--config.optimizer.: no such field. "),
        ("optimizer", "adam", "--config.optimizer: is a section. Set one of its fields: "
         "optimizer.learning_rate, optimizer.name."),
        ("seed", "0.5", "--config.seed=0.5: accepted: an integer."),
        ("seed", "", "--config.seed=: accepted: an integer."),
        ("shuffle", "1", "--config.shuffle=1: accepted: true or false."),
        ("sizes", "8", "--config.sizes=8: accepted: a tuple such as (1, 2)."),
        ("seed", "a\nb", r"--config.seed='a\nb': accepted: an integer."),
    ],
)  # fmt: skip
def test_an_override_that_cannot_be_is_one_line(config, name, text, message):
    before = configuration.plain(config)
    with pytest.raises(ConfigurationError) as caught:
        configuration.override(config, name, text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert configuration.plain(config) == before


def test_a_field_that_refers_to_another_follows_its_override():
    config = ConfigDict({"epochs": 2})
    config.steps = config.get_ref("epochs") * 10
    configuration.override(config.lock(), "epochs", "5")
    assert configuration.plain(config) == {"epochs": 5, "steps": 50}


def test_a_placeholder_takes_its_own_type_only():
    config = ConfigDict({"rate": config_dict.placeholder(float)}).lock()
    configuration.override(config, "rate", "1")
    assert configuration.plain(config) == {"rate": 1.0}
    with pytest.raises(ConfigurationError, match="accepted: a finite number"):
        configuration.override(config, "rate", "fast")


def test_a_required_field_must_be_given_and_can_be():
    config = ConfigDict({"model": {"units": config_dict.required_placeholder(int)}})
    with pytest.raises(ConfigurationError) as caught:
        configuration.plain(config)
    assert str(caught.value) == (
        "--config.model.units: required and not given. Add --config.model.units=<an integer>."
    )
    configuration.override(config, "model.units", "8")
    assert configuration.plain(config) == {"model": {"units": 8}}


# Resolving.


def test_a_resolved_configuration_is_what_json_gives_back(config):
    values = configuration.plain(config)
    assert json.loads(json.dumps(values)) == values
    assert values["sizes"] == [8, 16]
    assert configuration.plain(configuration.from_plain(values)) == values


def test_numbers_of_numpy_are_those_of_python():
    values = configuration.plain(ConfigDict({"a": np.float64(0.5), "b": np.int64(2)}))
    assert values == {"a": 0.5, "b": 2}
    assert [type(value) for value in values.values()] == [float, int]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "field model.x is nan, which JSON has no form for"),
        (float("inf"), "field model.x is inf"),
        (print, "field model.x is a builtin_function_or_method, which config.json cannot hold"),
        (np.zeros(2), "field model.x is a ndarray"),
        ([1, {2}], r"field model.x\[1\] is a set"),
    ],
)
def test_a_value_that_cannot_be_saved_is_named(value, message):
    with pytest.raises(ConfigurationError, match=message):
        configuration.plain(ConfigDict({"model": {"x": value}}))


def test_a_field_that_cannot_be_computed_is_named():
    config = ConfigDict({"epochs": 2})
    config.share = 1 / config.get_ref("epochs")
    configuration.override(config, "epochs", "0")
    with pytest.raises(ConfigurationError, match=r"field share cannot be computed.*ZeroDivision"):
        configuration.plain(config)


@given(data=st.data())
@settings(deadline=None)
def test_any_override_of_the_quickstart_is_resolved_the_same_twice_or_refused(data):
    config = digits.get_config()
    name = data.draw(st.sampled_from(configuration.field_names(config)) | st.text(max_size=20))
    text = data.draw(
        st.text()
        | st.from_regex(r"[-+]?[0-9]*\.?[0-9]*(e[-+]?[0-9]+)?", fullmatch=True)
        | st.from_regex(r"[\[\(\{][0-9a-z',: ]*[\]\)\}]?", fullmatch=True)
    )
    try:
        configuration.override(config, name, text)
        values = configuration.plain(config)
    except ConfigurationError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert configuration.plain(configuration.from_plain(values)) == values
    kinds = {name: type(digits.get_config()[name]) for name in configuration.field_names(config)}
    assert {name: type(config[name]) for name in kinds} == kinds
