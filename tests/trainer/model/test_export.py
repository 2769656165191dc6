"""An export replaces an earlier export and nothing else: what is not ours is never removed."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.persistence import files
from trainer.reading import export_model

X = np.ones((3, 2), "float32")


def model(value=1.0):
    made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    made.set_weights([np.full((2, 1), value, "float32")])
    return made


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def served(path):
    saved = tf.saved_model.load(str(path))  # its variables live as long as it does
    return float(saved.serve(X)[0, 0])


def loaded(path):
    return float(keras.saving.load_model(path).predict(X, verbose=0)[0, 0])


def fill(folder):
    (folder / "drafts").mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")
    (folder / "drafts" / "first.tex").write_text("more of it")


def run_files(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}")


def saved_model_of_another(folder):
    model().export(str(folder), format="tf_saved_model", verbose=False)


def export_with_notes(folder):
    export_model(model(), folder)
    (folder / "notes.txt").write_text("mine")


def export_with_a_file_among_the_variables(folder):
    export_model(model(), folder)
    (folder / "variables" / "notes.txt").write_text("mine")


def export_with_a_file_among_the_assets(folder):
    export_model(model(), folder)
    (folder / "assets" / "notes.txt").write_text("mine")


def export_with_assets_of_the_users(folder):
    export_model(model(), folder)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "label_map.txt").write_text("mine")


def models_of_another(folder):
    saved_model_of_another(folder)
    model().save(folder / "model.keras")


def text_file(path):
    path.write_text("years of work")


def keras_file_of_another(path):
    model().save(path)


@pytest.mark.parametrize(
    "stands",
    [
        fill,
        run_files,
        saved_model_of_another,
        export_with_notes,
        export_with_a_file_among_the_variables,
        export_with_a_file_among_the_assets,
        export_with_assets_of_the_users,
        models_of_another,
        text_file,
    ],
)
def test_what_is_no_earlier_export_is_left_alone_and_named(stands, tmp_path):
    path = tmp_path / "papers"
    stands(path)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"^export\('.*/papers'\): .* is not replaced\. Give"):
        export_model(model(2.0), path)
    assert contents(tmp_path) == before
    assert os.listdir(tmp_path) == ["papers"]


@pytest.mark.parametrize("stands", [fill, text_file, run_files, keras_file_of_another, os.mkfifo])
def test_a_keras_file_replaces_no_other_file_or_folder(stands, tmp_path):
    path = tmp_path / "model.keras"
    stands(path)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match="is not replaced"):
        export_model(model(2.0), path)
    assert contents(tmp_path) == before


def test_an_earlier_export_is_replaced(tmp_path):
    for value in (1.0, 2.0):
        assert export_model(model(value), tmp_path / "new" / "export") == tmp_path / "new/export"
        assert served(tmp_path / "new" / "export") == 2 * value
        assert loaded(tmp_path / "new" / "export" / "model.keras") == 2 * value
        export_model(model(value), str(tmp_path / "new" / "model.keras"))
        assert loaded(tmp_path / "new" / "model.keras") == 2 * value
    assert sorted(os.listdir(tmp_path / "new")) == ["export", "model.keras"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "export").mkdir()
    assert served(export_model(model(), tmp_path / "export")) == 2.0


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    export_model(model(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and served(tmp_path / "real") == 2.0
    (tmp_path / "best.keras").symlink_to("blob")
    for value in (1.0, 2.0):
        export_model(model(value), tmp_path / "best.keras")
    assert loaded(tmp_path / "best.keras") == 4.0 and (tmp_path / "blob").is_file()
    fill(tmp_path / "papers")
    (tmp_path / "other").symlink_to("papers")
    with pytest.raises(FileExistsError, match=r"other'\): other holds drafts, thesis.tex"):
        export_model(model(), tmp_path / "other")
    assert (tmp_path / "papers" / "thesis.tex").exists()


@pytest.mark.parametrize("fails", ["export", "save"])
def test_an_export_that_fails_leaves_the_earlier_one(fails, tmp_path, monkeypatch):
    export_model(model(), tmp_path / "export")
    before = contents(tmp_path)

    def fail(*arguments, **named):
        raise OSError("no space")

    monkeypatch.setattr(keras.Model, fails, fail)
    with pytest.raises(OSError, match="no space"):
        export_model(model(2.0), tmp_path / "export")
    assert contents(tmp_path) == before and os.listdir(tmp_path) == ["export"]


def test_a_rename_that_fails_brings_the_earlier_one_back(tmp_path, monkeypatch):
    export_model(model(), tmp_path / "export")
    before = contents(tmp_path)

    def fail(source, target):
        raise OSError("not now")

    monkeypatch.setattr(files, "_swapped", lambda first, second: False)
    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="not now"):
        export_model(model(2.0), tmp_path / "export")
    assert contents(tmp_path) == before and os.listdir(tmp_path) == ["export"]


def test_folders_are_exchanged_where_the_system_cannot_do_it_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_swapped", lambda first, second: False)
    for value in (1.0, 2.0):
        export_model(model(value), tmp_path / "export")
    assert served(tmp_path / "export") == 4.0 and os.listdir(tmp_path) == ["export"]


@pytest.mark.parametrize("name", ["export", "export.keras"])
@pytest.mark.parametrize("stood", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_names_that_do_not_reach_the_disk_are_put_back(name, stood, at_once, tmp_path, monkeypatch):
    if stood:
        export_model(model(), tmp_path / name)
    before = contents(tmp_path)

    def flush(path):
        if path == tmp_path:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "flush_to_disk", flush)
    if not at_once:
        monkeypatch.setattr(files, "_swapped", lambda first, second: False)
    with pytest.raises(OSError, match=r"cannot be written: Input/output error\. Mend this"):
        export_model(model(2.0), tmp_path / name)
    assert contents(tmp_path) == before and os.listdir(tmp_path) == [name] * stood


def test_what_killed_exports_left_goes_when_it_is_old(tmp_path):
    for name, age in [("old", 2 * files.ABANDONED), ("new", 0)]:
        folder = tmp_path / f"{files.UNFINISHED}{name}"
        fill(folder)
        now = folder.stat().st_mtime
        os.utime(folder, (now - age, now - age))
    export_model(model(), tmp_path / "export")
    assert sorted(os.listdir(tmp_path)) == [f"{files.UNFINISHED}new", "export"]


def test_a_path_that_tensorflow_takes_for_a_pattern_is_told(tmp_path):
    with pytest.warns(UserWarning, match="cannot load the SavedModel there. Move the folder"):
        export_model(model(), tmp_path / "lr=[1e-3]" / "export")
    assert loaded(tmp_path / "lr=[1e-3]" / "export" / "model.keras") == 2.0
    (tmp_path / "lr=[1e-3]" / "export").rename(tmp_path / "export")
    assert served(tmp_path / "export") == 2.0
