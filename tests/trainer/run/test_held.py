"""What a step reads or writes beside the model: named by where it is held, however it was made."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer.run.held import held_variables, plain_variables, shared_anew

ONE = tf.distribute.get_strategy()


def variable(name="same"):
    return tf.Variable(0.0, trainable=False, name=name)


class Counting(keras.layers.Layer):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self._count, self.tables = variable(), {"a": [variable()]}

    def call(self, x):
        return x


class Centred(losses.Term):
    def __init__(self):
        super().__init__(name="centred")
        self.centre, self.layer = variable(), Counting()


def test_each_is_named_by_its_way_from_a_place_in_whatever_order_it_is_read():
    stack = keras.layers.RNN([keras.layers.LSTMCell(2) for _ in range(2)], stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(4, 5, 3)), stack, Counting()])
    term = Centred()
    states = keras.tree.flatten(stack.states)
    counting = model.layers[1]
    expected = {
        **{f"model/layers/0/states/{i // 2}/{i % 2}": v.value for i, v in enumerate(states)},
        "model/layers/1/_count": counting._count,
        "model/layers/1/tables/a/0": counting.tables["a"][0],
        "term/centre": term.centre,
        "term/layer/_count": term.layer._count,
        "term/layer/tables/a/0": term.layer.tables["a"][0],
    }
    places = [("model", model), ("term", term)]
    known = model.variables
    for traced in (list(expected.values()), list(expected.values())[::-1]):
        held = held_variables(ONE, [*traced, *(v.value for v in known)], known, places)
        assert {name: id(v) for name, v in held.items()} == {
            name: id(v) for name, v in expected.items()
        }
    assert set(plain_variables(model)) == set(list(expected)[:6])


def test_what_no_place_holds_is_counted_in_the_order_of_its_first_use():
    loose = [variable(name) for name in ("variable_9", "variable_10", "other")]
    held = held_variables(ONE, loose, [], [("term", Centred())])
    names = ["step/variable", "step/variable_1", "step/other"]
    assert [(name, id(v)) for name, v in held.items()] == [
        (name, id(v)) for name, v in zip(names, loose, strict=True)
    ]


def test_the_replicas_parts_have_names_of_their_own(two_replicas):
    with two_replicas.scope():
        term, closed_over = Centred(), variable("closed_over")
    parts = [two_replicas.experimental_local_results(v) for v in (term.centre, closed_over)]
    traced = [part for both in zip(*parts, strict=True) for part in both]
    held = held_variables(two_replicas, traced, [], [("term", term)])
    assert {name: id(v) for name, v in held.items()} == {
        "term/centre": id(parts[0][0]),
        "term/centre/replica_1": id(parts[0][1]),
        "step/closed_over": id(parts[1][0]),
        "step/closed_over/replica_1": id(parts[1][1]),
    }
    assert held_variables(two_replicas, traced, [term.centre, closed_over], []) == {}


@pytest.mark.parametrize(
    "aggregation, one, three",
    [("SUM", [8], [8, 0, 0]), ("MEAN", [4], [4] * 3), ("ONLY_FIRST_REPLICA", [3], [3] * 3)],
)
def test_parts_for_another_number_of_replicas_are_read_alike(aggregation, one, three):
    kind = getattr(tf.VariableAggregation, aggregation)
    parts = np.array([3.0, 5.0], "float32")
    assert shared_anew(parts, 1, kind).tolist() == one
    assert shared_anew(parts, 3, kind).tolist() == three
    assert shared_anew(parts, 2, kind) is parts
