"""The configurations of the package are found from any folder; a file of the user's comes first."""

from pathlib import Path

import pytest

from experiments.cli import configuration
from experiments.cli.configuration import ConfigurationError
from experiments.cli.shipped import FOLDER, locate, names


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", ["digits", "digits.py", "experiments/configs/digits.py"])
def test_a_configuration_of_the_package_is_found_from_an_empty_folder(given):
    assert locate(given) == str(FOLDER / "digits.py")
    assert configuration.load(given).experiment == "experiments.digits"


def test_a_file_of_the_users_comes_first(an_empty_folder):
    Path("digits.py").write_text("def get_config(): return {'experiment': 'mine'}\n")
    assert locate("digits.py") == "digits.py"
    assert configuration.load("digits.py").experiment == "mine"


def test_a_folder_of_that_name_is_no_configuration(an_empty_folder):
    Path("digits").mkdir()
    assert locate("digits") == str(FOLDER / "digits.py")


def test_what_is_neither_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigurationError, match=r"--config=digit5: no such file\. There are: .*"):
        configuration.load("digit5")
    assert "__init__" not in names() and {"digits", "consistency"} <= set(names())


def test_a_path_elsewhere_is_left_as_it_is():
    assert locate("other/digits.py") == "other/digits.py"
