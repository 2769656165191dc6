"""What is packed comes back as it was, to the bit, and nothing is run to read it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.run.packing import is_plain, pack, unpack

PLAIN = [
    None,
    True,
    -3,
    0.1,
    float("inf"),
    "é\n",
    [1, [2.0, None]],
    (1, ("a",)),
    {"a": {"b": 1}, 3: "key", "array": [1]},
]


@pytest.mark.parametrize("value", PLAIN, ids=str)
def test_plain_values_come_back_equal_and_of_their_types(value):
    assert is_plain(value)
    back = unpack(pack(value))
    assert back == value and type(back) is type(value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "bool", "complex64", "bfloat16"])
def test_arrays_come_back_with_their_dtypes_and_shapes(dtype):
    arrays = [tf.cast([[0, 1, 1]], dtype).numpy(), tf.cast(1, dtype).numpy(), np.zeros([0, 2])]
    back = unpack(pack({"arrays": arrays}))["arrays"]
    for array, other in zip(arrays, back, strict=True):
        assert np.shape(array) == np.shape(other) and array.dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize("value", [object(), {1, 2}, [keras.Variable(1.0)], np.array(["a"])])
def test_what_is_no_plain_value_is_refused(value):
    assert not is_plain(value)
    with pytest.raises(TypeError, match="cannot be saved"):
        pack(value)
