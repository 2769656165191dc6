"""Restoring into another model: what differs, by name; and starting from another run's weights."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.persistence.checkpoint import Checkpoints
from trainer.persistence.restore import initialize_from


class Shape(NamedTuple):
    """Enough of a variable for a state: what a model of another size would have."""

    name: str
    shape: tuple
    dtype: str = "float32"

    def variable(self):
        return keras.Variable(np.zeros(self.shape), name=self.name, dtype=self.dtype)


def variables(*shapes):
    return [Shape(*one).variable() for one in shapes]


def save(folder, state):
    Checkpoints(folder, state, 3).save(5, wait=True)


def message(folder, state):
    with pytest.raises(ValueError) as told:
        Checkpoints(folder, state, 3).restore_latest()
    return str(told.value)


def test_what_is_missing_extra_and_of_another_shape_is_told_by_name(tmp_path):
    save(tmp_path, {"model": variables(("kernel", (8, 2)), ("bias", (2,)), ("old", (3,)))})
    new = variables(("kernel", (8, 4)), ("bias", (2,)), ("scale", ()), ("shift", (1,)))
    assert message(tmp_path, {"model": new}).splitlines() == [
        f"{tmp_path}/ckpt-5 does not fit this run: model has 4 variables, the checkpoint 3.",
        "  another shape: kernel (8, 4), the checkpoint (8, 2)",
        "  missing in the checkpoint: scale ()",
        "  missing in the checkpoint: shift (1,)",
        "  only in the checkpoint: old (3,)",
        "Restore it with the same model, optimizer and terms, or use a new workdir.",
    ]
    assert all(not np.any(v) for v in new)


def test_layers_numbered_by_keras_are_compared_as_if_counted_anew(tmp_path):
    def model(units, *more):
        layers = [keras.layers.Dense(units), keras.layers.Dense(3), *more]
        return keras.Sequential([keras.Input((2,)), *layers])

    save(tmp_path, {"model": model(8).variables})
    other = model(8)  # its layers are dense_2 and dense_3, or later
    Checkpoints(tmp_path, {"model": other.variables}, 3).restore_latest()
    wider = model(16, keras.layers.BatchNormalization())
    first, second, last = (layer.path for layer in wider.layers)
    lines = message(tmp_path, {"model": wider.variables}).splitlines()
    assert lines[1:-1] == [
        f"  another shape: {first}/kernel (2, 16), the checkpoint (2, 8)",
        f"  another shape: {first}/bias (16,), the checkpoint (8,)",
        f"  another shape: {second}/kernel (16, 3), the checkpoint (8, 3)",
        f"  missing in the checkpoint: {last}/gamma (3,)",
        f"  missing in the checkpoint: {last}/beta (3,)",
        f"  missing in the checkpoint: {last}/moving_mean (3,)",
        "  ... and 1 more",
    ]


def test_another_dtype_and_another_list_are_told(tmp_path):
    save(tmp_path, {"model": variables(("a", (2,), "float16")), "metrics": variables(("m", ()))})
    text = message(tmp_path, {"model": variables(("a", (2,))), "terms": variables(("t", ()))})
    assert text.splitlines()[0].endswith(
        "does not fit this run: model differs; terms has 1 variables, the checkpoint 0; "
        "metrics has 0 variables, the checkpoint 1."
    )
    assert "  another dtype: a float32, the checkpoint float16" in text
    assert "  missing in the checkpoint: t ()" in text and "  only in the checkpoint: m ()" in text


def test_the_same_variables_in_another_order_are_not_mixed_up(tmp_path):
    save(tmp_path, {"model": variables(("left", (2,)), ("right", (2,)))})
    text = message(tmp_path, {"model": variables(("right", (2,)), ("left", (2,)))})
    assert "  another order: right stands at 0, not 1" in text


def test_a_layer_that_was_only_renamed_is_restored_by_its_place(tmp_path):
    save(tmp_path, {"model": [keras.Variable([1.0, 2.0], name="before")]})
    after = keras.Variable([0.0, 0.0], name="after")
    Checkpoints(tmp_path, {"model": [after]}, 3).restore_latest()
    np.testing.assert_array_equal(after, [1.0, 2.0])


def test_however_much_differs_the_message_has_at_most_ten_lines(tmp_path):
    save(tmp_path, {"model": variables(*((f"a{i}", (i + 1,)) for i in range(30)))})
    lines = message(tmp_path, {"model": variables(*((f"b{i}", ()) for i in range(20)))})
    assert len(lines.splitlines()) <= 10 and "... and 44 more" in lines


def test_a_checkpoint_of_an_older_version_is_compared_by_places(tmp_path):
    manager = tf.train.CheckpointManager(
        tf.train.Checkpoint(model=[tf.Variable([1.0, 2.0])]), tmp_path, 3
    )
    manager.save(checkpoint_number=5)
    text = message(tmp_path, {"model": variables(("a", (3,)))})
    assert "  missing in the checkpoint: a (3,)" in text
    assert "  only in the checkpoint: model/0 (2,)" in text


# ---- what is held beside, and other numbers of replicas


def plain(**values):
    return {name: tf.Variable(value, name=name.split("/")[-1]) for name, value in values.items()}


def test_what_is_held_is_restored_by_name(tmp_path):
    save(tmp_path, {"held": plain(a=1.0, b=2.0, c=3.0)})
    held = plain(c=0.0, a=0.0, b=0.0)
    Checkpoints(tmp_path, {"held": held}, 3).restore_latest()
    assert {name: float(v) for name, v in held.items()} == {"a": 1, "b": 2, "c": 3}
    with pytest.raises(ValueError, match=r"missing in the checkpoint: d \(\)"):
        Checkpoints(tmp_path, {"held": plain(a=0.0, b=0.0, c=0.0, d=0.0)}, 3).restore_latest()


def test_what_an_older_version_held_is_restored_in_the_order_of_its_own_names(tmp_path):
    save(tmp_path, {"others": [tf.Variable(1.0, name="alpha"), tf.Variable(2.0, name="beta")]})
    held = {"term/x": tf.Variable(0.0, name="beta"), "term/y": tf.Variable(0.0, name="alpha")}
    Checkpoints(tmp_path, {"held": held}, 3).restore_latest()
    assert {name: float(v) for name, v in held.items()} == {"term/x": 2, "term/y": 1}


@pytest.mark.parametrize("older", [False, True])
def test_other_replicas_take_the_first_ones_part(older, tmp_path):
    def held(value, *replicas):
        names = {"x": "centre", **{f"x/replica_{i}": f"centre/replica_{i}" for i in replicas}}
        return {n: tf.Variable(value + i, name=own) for i, (n, own) in enumerate(names.items())}

    for now, then in (((), (1,)), ((1,), ()), ((1, 2), (1,))):
        folder = tmp_path / f"{len(now)}"
        saved = held(3.0, *then)
        if older:
            saved = sorted(saved.values(), key=lambda variable: variable.name)
        save(folder, {"others" if older else "held": saved, "random": variables(("seed", (2,)))})
        ours = held(0.0, *now)
        Checkpoints(folder, {"held": ours}, 3).restore_latest()  # which draws on one replica
        assert float(ours["x"]) == 3
        values = [float(ours[f"x/replica_{i}"]) for i in now]
        assert values == ([] if not now else [3] if len(now) == 1 else [4 - older, 3])


def test_draws_of_another_number_of_replicas_are_left(tmp_path):
    save(tmp_path, {"random": variables(("seed", (2,))), "held": plain(a=1.0)})
    held = {**plain(a=0.0), "step/seed_generator_state": tf.Variable([7, 7])}
    Checkpoints(tmp_path, {"held": held}, 3).restore_latest()
    assert float(held["a"]) == 1
    assert held["step/seed_generator_state"].numpy().tolist() == [7, 7]


# ---- warm start


@pytest.fixture
def pretrained(tmp_path):
    """A run's workdir whose model is [1, 2] and whose loss parameters are sigma and tau."""
    state = {
        "model": [keras.Variable([1.0, 2.0], name="kernel")],
        "optimizers": [keras.Variable(7, name="iteration", dtype="int64")],
        "terms": {"sigma": keras.Variable(0.5), "tau": tf.Variable(0.25)},
    }
    save(tmp_path / "first" / "checkpoints", state)
    return tmp_path / "first"


def fresh(*parameters):
    model = [keras.Variable([0.0, 0.0], name="weights")]
    return {
        "model": model,
        "optimizers": [keras.Variable(0, name="iteration", dtype="int64")] * 3,
        "terms": {name: keras.Variable(9.0) for name in parameters},
    }


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/ckpt-5"])
def test_a_warm_start_takes_the_model_and_the_loss_parameters_by_name(place, pretrained):
    state = fresh("tau", "rho", "sigma")
    found = initialize_from(pretrained / place, state)
    np.testing.assert_array_equal(state["model"][0], [1.0, 2.0])
    assert {name: float(v) for name, v in state["terms"].items()} == {
        "tau": 0.25,
        "rho": 9.0,
        "sigma": 0.5,
    }
    assert found.path == str(pretrained / "checkpoints" / "ckpt-5")
    assert found.loss_parameters == ["tau", "sigma"] and found.left == ["rho"]
    assert int(state["optimizers"][0]) == 0


def test_a_warm_start_without_loss_parameters_leaves_them(pretrained):
    state = fresh("sigma")
    found = initialize_from(pretrained, state, loss_parameters=False)
    assert float(state["terms"]["sigma"]) == 9.0 and float(state["model"][0][0]) == 1.0
    assert found.loss_parameters == [] and found.left == ["sigma"]


def test_a_warm_start_of_another_model_is_told_by_name_and_changes_nothing(pretrained):
    state = {**fresh("sigma"), "model": variables(("kernel", (3,)))}
    with pytest.raises(ValueError, match=r"another shape: kernel \(3,\), the checkpoint \(2,\)"):
        initialize_from(pretrained, state)
    assert float(state["terms"]["sigma"]) == 9.0
    state = {**fresh(), "terms": {"sigma": keras.Variable([9.0, 9.0])}}
    with pytest.raises(ValueError, match=r"another shape: sigma \(2,\), the checkpoint \(\)"):
        initialize_from(pretrained, state)
    assert float(state["model"][0][0]) == 0.0


def test_a_warm_start_goes_on_from_the_newest_whole_one(pretrained):
    state = fresh()
    folder = pretrained / "checkpoints"
    Checkpoints(folder, {"model": [keras.Variable([3.0, 4.0])]}, 3).save(9, wait=True)
    (folder / "ckpt-9.index").unlink()
    with pytest.warns(UserWarning, match=r"ckpt-9.index is missing. Restoring .* ckpt-5"):
        initialize_from(pretrained, state)
    np.testing.assert_array_equal(state["model"][0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"ckpt-9 is damaged: ckpt-9.index is missing. Give"):
        initialize_from(folder / "ckpt-9", state)


def test_a_warm_start_from_nothing_is_an_error(tmp_path):
    for place, words in (
        (tmp_path, "holds no checkpoint. Give the workdir"),
        (tmp_path / "missing", "holds no checkpoint"),
        (tmp_path / "ckpt-3", "no such checkpoint: ckpt-3.json is not there"),
        (tmp_path / "ckpt-3.index", "no such checkpoint: ckpt-3.json is not there"),
    ):
        with pytest.raises(FileNotFoundError, match=words):
            initialize_from(place, fresh())
