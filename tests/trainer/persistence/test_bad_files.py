"""A workdir edited by hand: one clear error or the run goes on, and no file of it runs as code."""

import json
import pickle
import shutil

import keras
import numpy as np
import pytest

from trainer import Trainer

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
CONFIG = {"seed": 0, "note": "as given"}


def make(workdir):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="out")])
    return Trainer(model, optimizer="adam", loss="mse", workdir=workdir, config=CONFIG)


def train(workdir, steps):
    return make(workdir).fit(
        (X, X[:, :1]), steps=steps, batch_size=8, log_every=1, checkpoint_every=2
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 4 steps with checkpoints at 2 and 4."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(folder, 4)
    return folder


@pytest.fixture
def copied(finished, workdir):
    shutil.copytree(finished, workdir)
    return workdir


def contents(folder):
    """Every file but the lock, which remembers its last owner."""
    files = [path for path in folder.rglob("*") if path.is_file() and "lock" not in path.name]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def edit_json(**changes):
    def edit(text):
        return json.dumps({**json.loads(text), **changes})

    return edit


def edit_row(number, **changes):
    def edit(text):
        lines = text.splitlines()
        lines[number] = json.dumps({**json.loads(lines[number]), **changes})
        return "\n".join(lines) + "\n"

    return edit


def insert(number, line):
    def edit(text):
        lines = text.splitlines()
        return "\n".join([*lines[:number], line, *lines[number:]]) + "\n"

    return edit


# name: (file, its new text, the words of the error)
REFUSED = {
    "a row that is not JSON": (
        "metrics.jsonl", insert(1, "step 2 looked odd"), "metrics.jsonl, line 2: is not JSON"),
    "a list as a row": ("metrics.jsonl", insert(0, "[1, 2]"), "line 1: holds a list, not an obj"),
    "a blank line between rows": ("metrics.jsonl", insert(2, ""), "line 3: is not JSON"),
    "a row without a step": ("metrics.jsonl", insert(0, '{"split": "train"}'), "has no 'step'"),
    "a step in words": ("metrics.jsonl", edit_row(0, step="1"), "line 1: has step '1', not a who"),
    "a step of true": ("metrics.jsonl", edit_row(0, step=True), "has step True, not a whole numb"),
    "a negative step": ("metrics.jsonl", edit_row(3, step=-4), "line 4: has step -4, not a whole"),
    "another split": ("metrics.jsonl", edit_row(0, split="tset"), "has split 'tset', neither"),
    "a total in words": ("metrics.jsonl", edit_row(0, total="low"), "has total 'low', neither"),
    "a row of NaN": (
        "metrics.jsonl", insert(0, '{"step": NaN}'), "line 1: holds NaN, which is not JSON"),
    "rows of nesting": ("metrics.jsonl", insert(0, "[" * 100_000), "metrics.jsonl, line 1: "),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_edited_file_stops_the_run_and_nothing_is_written(case, copied):
    name, edit, words = REFUSED[case]
    file = copied / name
    file.write_text(edit(file.read_text(encoding="utf-8")), encoding="utf-8")
    before = contents(copied)
    with pytest.raises(ValueError) as caught:
        train(copied, 6)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert contents(copied) == before


# name: (file, its new text); the newest checkpoint is passed over for the one before
PASSED_OVER = {
    "a manifest of another step": ("checkpoints/ckpt-4.json", edit_json(step=5)),
    "a manifest that is empty": ("checkpoints/ckpt-4.json", lambda text: ""),
    "a manifest that is a list": ("checkpoints/ckpt-4.json", lambda text: f"[{text}]"),
    "a manifest without files": ("checkpoints/ckpt-4.json", edit_json(files={})),
    "a manifest of files elsewhere": (
        "checkpoints/ckpt-4.json",
        edit_json(files={"../../a": {"sha256": "", "bytes": 1}, "/etc/passwd": {}}),
    ),
    "metrics in words": ("checkpoints/ckpt-4.json", edit_json(metrics={"total": "low"})),
    "variables that are none": ("checkpoints/ckpt-4.json", edit_json(variables={"model": 3})),
}


@pytest.mark.parametrize("case", PASSED_OVER)
def test_an_edited_manifest_is_passed_over_and_it_is_said(case, copied, capsys):
    name, edit = PASSED_OVER[case]
    file = copied / name
    file.write_text(edit(file.read_text(encoding="utf-8")), encoding="utf-8")
    history = train(copied, 6)
    shown = "".join(capsys.readouterr())
    assert "ckpt-4.json" in shown
    assert "Restoring the newest whole one, ckpt-2" in shown
    assert [row["step"] for row in history.rows] == [1, 2, 3, 4, 5, 6]


def test_when_every_manifest_was_edited_it_is_an_error(copied):
    for file in (copied / "checkpoints").glob("ckpt-*.json"):
        file.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"no checkpoint is whole: ckpt-4\.json holds step=None"):
        train(copied, 6)


def test_an_edited_done_file_does_not_stop_what_goes_on(copied):
    (copied / "DONE.json").write_text("done, I think", encoding="utf-8")
    train(copied, 6)
    assert json.loads((copied / "DONE.json").read_text(encoding="utf-8"))["step"] == 6


def test_an_edited_done_file_of_a_finished_run_is_an_error(copied):
    (copied / "DONE.json").write_text("done, I think", encoding="utf-8")
    with pytest.raises(ValueError, match=r"DONE.json is not JSON \(line 1\). Delete it"):
        train(copied, 4)


def test_extra_files_are_left_alone(copied):
    notes = copied / "notes.txt"
    notes.write_text("mine", encoding="utf-8")
    (copied / "checkpoints" / "notes.txt").write_text("mine too", encoding="utf-8")
    train(copied, 6)
    assert notes.read_text(encoding="utf-8") == "mine"
    assert (copied / "checkpoints" / "notes.txt").exists()


# Nothing in a workdir is code.


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


CODE = "__import__('pathlib').Path('{target}').touch()"


def test_what_looks_like_code_in_a_workdir_stays_text(copied, tmp_path):
    target = tmp_path / "ran"
    code = CODE.format(target=target)
    (copied / "config.json").write_text(json.dumps({"seed": code, "!": f"${{{code}}}"}))
    for name in ("state.pkl", "checkpoints/ckpt-4.pkl", "model.pkl"):
        (copied / name).write_bytes(pickle.dumps(Bomb(target)))
    for name in ("config.py", "sitecustomize.py", "checkpoints/__init__.py", "keras.py"):
        (copied / name).write_text(code, encoding="utf-8")
    for row, name in enumerate(("split", "note")):
        file = copied / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines()
        lines[row] = json.dumps({**json.loads(lines[row]), f"{name}/{code}": code})
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    history = train(copied, 6)
    assert history.rows[-1]["step"] == 6
    assert make(copied).evaluate((X, X[:, :1]))["total"] >= 0
    kept = json.loads((copied / "config.json").read_text())
    assert kept["seed"] == code  # as it was, and as text
    assert not target.exists()


def test_a_pickle_in_place_of_a_checkpoint_is_not_opened(copied, tmp_path):
    target = tmp_path / "ran"
    for file in (copied / "checkpoints").glob("ckpt-4.*"):
        file.write_bytes(pickle.dumps(Bomb(target)))
    history = train(copied, 6)
    assert history.rows[-1]["step"] == 6
    assert not target.exists()


def test_a_lambda_in_an_exported_model_is_not_run_by_loading_it(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    trained = keras.Sequential([model, keras.layers.Dense(1)])
    trainer = Trainer(trained, optimizer="sgd", loss="mse")
    trainer.fit((X, X[:, :1]), steps=1, batch_size=8, verbose=False)
    path = trainer.export(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.saving.load_model(path)
