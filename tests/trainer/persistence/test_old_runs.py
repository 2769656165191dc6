"""Runs, models and names written before the redesign (commit f0e974e) go on as they were.

tests/fixtures/old_run/make.py wrote them, and builds the same runs here with the present code.
Values may differ in their last digits where another CPU rounds otherwise.
"""

import importlib.util
import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from trainer import Trainer

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "old_run"
ROUNDING = {"rtol": 1e-6, "atol": 1e-7}


@pytest.fixture(scope="module")
def old():
    """The functions of make.py."""
    spec = importlib.util.spec_from_file_location("old_run", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(name):
    return json.loads((FOLDER / name).read_text())


def assert_rows_equal(rows, expected):
    for row, other in zip(rows, expected, strict=True):
        assert other.keys() <= row.keys()
        for key, value in other.items():
            assert row[key] == value or row[key] == pytest.approx(value, rel=1e-6, abs=1e-7), key


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    "name", ["arrays", "pipeline", "accumulating", "gradnorm", "replicas", "famo"]
)
def test_an_old_run_goes_on_to_the_rows_and_weights_of_the_old_code(
    name, old, workdir, two_replicas
):
    shutil.copytree(FOLDER / name, workdir)
    config = (workdir / "config.json").read_text()
    trained = old.trainer(name, workdir, two_replicas)
    history = old.fit(name, trained)
    assert_rows_equal(old.rows_of(workdir), read(f"{name}.json"))
    assert [row["step"] for row in history.rows] == [row["step"] for row in old.rows_of(workdir)]
    state = old.state_of(trained)
    with np.load(FOLDER / f"{name}.npz") as expected:
        assert state.keys() == set(expected)
        for part, values in expected.items():
            np.testing.assert_allclose(state[part], values, **ROUNDING, err_msg=part)
    starts = [json.loads(line) for line in (workdir / "starts.jsonl").read_text().splitlines()]
    assert [start["resumed_from"] for start in starts] == [None, 12]
    assert (workdir / "config.json").read_text() == config
    assert (workdir / "DONE.json").exists()


def test_an_old_compiled_model_loads_with_its_losses_schedule_and_slots(old):
    model = keras.models.load_model(FOLDER / "compiled.keras")
    values, expected = old.values_of(model), read("compiled.json")
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-6, err_msg=name)
    assert int(model.optimizer.iterations) == 3
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_a_trainer_takes_the_losses_of_an_old_compiled_model(old):
    model, expected = keras.models.load_model(FOLDER / "compiled.keras"), read("compiled.json")
    x, y, sample_weight = old.arrays()
    found = Trainer.from_compiled(model).evaluate((x, y, sample_weight), batch_size=40)
    for name in ("label", "size"):
        assert found[f"raw/{name}"] == pytest.approx(expected[f"{name}_loss"], rel=1e-6)
    assert found["total"] - found["raw/regularization/trunk/kernel"] == pytest.approx(
        2.0 * expected["label_loss"] + 0.5 * expected["size_loss"], rel=1e-6
    )


def test_an_old_export_loads_and_predicts_as_it_did(old):
    outputs = keras.models.load_model(FOLDER / "exported.keras").predict(old.arrays()[0], verbose=0)
    for name, value in read("exported.json").items():
        np.testing.assert_allclose(np.sum(outputs[name], 0), value, rtol=1e-5, err_msg=name)


def test_what_keras_wrote_of_losses_schedules_and_terms_is_read_with_the_same_values(old):
    written = read("serialized.json")
    made = list(old.objects())
    assert len(written) == len(made)
    for line, (_, y_true, y_pred) in zip(written, made, strict=True):
        thing = keras.saving.deserialize_keras_object(line["object"])
        name = line["object"]["registered_name"]
        value = old.value_of(thing, y_true, y_pred)
        if line["value"] is not None:
            np.testing.assert_allclose(value, line["value"], rtol=1e-5, err_msg=name)
        again = keras.saving.serialize_keras_object(thing)
        assert again["registered_name"] == name
        config, before = (_without_modules(c) for c in (again["config"], line["object"]["config"]))
        # a setting that is newer than the file has its default
        assert {key: config.get(key) for key in before} == before, name


def _without_modules(config):
    """A configuration without the modules of its classes, which may move."""
    if isinstance(config, dict):
        return {k: _without_modules(v) for k, v in config.items() if k != "module"}
    if isinstance(config, list):
        return [_without_modules(value) for value in config]
    return config


def test_no_file_of_the_old_runs_names_the_machine_that_made_it():
    for file in FOLDER.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".jsonl", ""):
            assert '"/' not in file.read_text(), f"an absolute path in {file}"
    lines = (FOLDER / "arrays" / "starts.jsonl").read_text().splitlines()
    assert [json.loads(line)["argv"] for line in lines] == [["make.py"]]
    assert sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) < 200_000
