"""What an experiment's module gives to the program."""

import pytest
from ml_collections import ConfigDict

from experiments.cli import ConfigurationError
from experiments.configs import consistency, digits, two_digits
from experiments.experiment import check_name, fit_settings


@pytest.mark.parametrize("module", [digits, two_digits, consistency])
def test_the_settings_of_fit_are_those_of_the_configuration(module):
    config = module.get_config()
    assert fit_settings(config) == {
        "steps": config.steps,
        "batch_size": config.batch_size,
        "log_every": config.log_every,
        "validate_every": config.validate_every,
        "checkpoint_every": config.checkpoint_every,
    }


def test_a_setting_that_is_missing_is_an_error():
    with pytest.raises(KeyError, match="batch_size"):
        fit_settings(ConfigDict({"steps": 3}))


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder on the import path with modules in and beside the workdir `run`."""
    for name in ("beside.py", "run/inside.py", "run/deep/__init__.py", "run/deep/module.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("raise SystemExit('this was run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_module_beside_the_workdir_is_looked_for_and_not_run(places):
    assert check_name("beside", str(places / "run")) == "beside"
    assert check_name("beside", None) == "beside"


@pytest.mark.parametrize("name", ["run", "run.inside", "run.deep", "run.deep.module", "run.no"])
def test_a_module_in_the_workdir_is_refused_and_not_run(name, places):
    with pytest.raises(ConfigurationError, match=f"{name} lies in the workdir"):
        check_name(name, str(places / "run"))


def test_a_package_that_holds_the_workdir_may_have_other_modules(places):
    (places / "run" / "deep" / "q1").mkdir()
    (places / "run" / "deep" / "__init__.py").write_text("")
    workdir = str(places / "run" / "deep" / "q1")
    assert check_name("run.deep.module", workdir) == "run.deep.module"
