"""The layers of a model, however they are nested."""

import keras

from losses.layers import layers_of, stable_names, stable_path


class Block(keras.layers.Layer):
    """A layer that holds others, one by one, in a list, in a dict and in a dict of lists."""

    def __init__(self, name, shared=None):
        super().__init__(name=name)
        self.one = keras.layers.Dense(1, name=f"{name}_one")
        self.listed = [keras.layers.Dense(1, name=f"{name}_listed")]
        self.named = {"a": keras.layers.Dense(1, name=f"{name}_named")}
        self.deep = {"b": [keras.layers.Dense(1, name=f"{name}_deep")]}
        self.shared = shared

    def call(self, x):
        held = [self.one, *self.listed, *self.named.values(), *self.deep["b"]]
        return keras.layers.add([layer(x) for layer in held])


def names(layer):
    return [found.name for found in layers_of(layer)]


def test_layers_in_attributes_lists_and_dicts_are_found_after_the_one_that_holds_them():
    block = Block("block")
    expected = ["block", "block_one", "block_listed", "block_named", "block_deep"]
    assert names(block)[0] == "block"
    assert sorted(names(block)) == sorted(expected)


def test_a_layer_inside_a_custom_layer_of_a_functional_model_is_found():
    x = keras.Input((2,), name="x")
    model = keras.Model(x, Block("block")(x), name="net")
    assert [layer.name for layer in model.layers] == ["x", "block"]
    found = names(model)
    assert found[0] == "net"
    assert found.index("block") < found.index("block_one")
    assert "block_deep" in found


def test_a_layer_that_is_held_twice_and_one_that_holds_its_holder_come_once():
    shared = keras.layers.Dense(1, name="shared")
    outer = Block("outer", Block("inner", shared))
    outer.again = shared
    assert names(outer).count("shared") == 1
    outer.shared.shared = outer
    assert names(outer).count("outer") == 1


def test_a_layer_without_others_is_alone():
    assert names(keras.layers.Dense(1, name="alone")) == ["alone"]


def test_names_count_what_is_in_the_model_not_what_the_process_has_made():
    def model():
        head = [keras.layers.Dense(2), keras.layers.Dense(2, name="head"), keras.layers.Dense(2)]
        return keras.Sequential([keras.Input((2,)), *head])

    keras.layers.Dense(1)  # another that Keras counts
    for made in (model(), model()):
        plain = {layer.name: stable_names(made).get(layer.name) for layer in made.layers}
        assert list(plain.values()) == ["dense", None, "dense_1"]
        assert stable_names(made)[made.name] == "sequential"
        paths = [stable_path(v.path, stable_names(made)) for v in made.variables[::2]]
        assert paths == [f"sequential/{name}/kernel" for name in ("dense", "head", "dense_1")]
