"""Numbers of the environment: the default where nothing is set, one error where it is no number."""

import pytest

from trainer.distributed.environment import number, startup_seconds


@pytest.mark.parametrize(("text", "seconds"), [(None, 600.0), ("", 600.0), ("90", 90.0)])
def test_a_start_waits_ten_minutes_or_what_is_set(monkeypatch, text, seconds):
    monkeypatch.delenv("TERMWISE_STARTUP_S", raising=False)
    if text is not None:
        monkeypatch.setenv("TERMWISE_STARTUP_S", text)
    assert startup_seconds() == seconds and isinstance(startup_seconds(), float)


def test_a_number_is_of_the_type_of_its_default(monkeypatch):
    monkeypatch.setenv("TERMWISE_PORT", "7000")
    assert number("TERMWISE_PORT", 1) == 7000 and isinstance(number("TERMWISE_PORT", 1), int)


@pytest.mark.parametrize("text", ["ten", "1.5"])
def test_what_is_no_number_is_said_with_its_name(monkeypatch, text):
    monkeypatch.setenv("TERMWISE_PORT", text)
    with pytest.raises(ValueError, match=f"TERMWISE_PORT='{text}': accepted is a number"):
        number("TERMWISE_PORT", 1)
