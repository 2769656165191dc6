"""Arrays of other libraries are read as NumPy reads them, or refused with what to write."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import sparse

from trainer import Trainer
from trainer.data.given.arrays_of_others import array_of
from trainer.data.open import open_data

X = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
Y = X[:, :1]


def source(data):
    return open_data(data, batch_size=2)


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(2)


REFUSED = {
    "scipy": (lambda: (sparse.csr_matrix(X), Y), r"a sparse csr_matrix. Write x.toarray\(\)"),
    "scipy array": (lambda: (sparse.coo_array(X), Y), r"Write x.toarray\(\)"),
    "sparse": (lambda: (tf.sparse.from_dense(X), Y), r"Write tf.sparse.to_dense\(x\)"),
    "ragged": (
        lambda: (tf.ragged.constant([[1.0], [2.0, 3.0]]), [1.0, 2.0]),
        r"from_tensor_slices\(\(x, y\)\).batch",
    ),
    "masked": (
        lambda: (np.ma.masked_array(X, X > 0), Y),
        r"its mask would be lost. Write x",
    ),
    "iterator": (lambda: iter(dataset()), "is an iterator of a tf.data.Dataset. Pass the dataset"),
    "numpy iterator": (lambda: dataset().as_numpy_iterator(), "Pass the dataset itself"),
    "objects": (
        lambda: (np.array([{}, None], dtype=object), [1.0, 2.0]),
        r"an array of Python objects \(NoneType, dict\)",
    ),
    "dates": (
        lambda: (np.array(["2026-01-01", "2026-01-02"], dtype="datetime64[D]"), Y[:2]),
        r"ndarray of datetime64\[D\] that is no array of numbers",
    ),
    "examples in a list": (
        lambda: (list(X), list(Y)),
        r"x\[0\] 2, y\[0\] 1\. .* x is a list, .*np.stack\(x\)",
    ),
    "examples in pairs": (lambda: list(zip(X, Y, strict=True)), r"x is a list.* a tuple, \(x, y\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_array_is_refused_with_what_to_write(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as refused:
        source(make())
    assert len(str(refused.value)) < 420


def test_an_array_without_masked_values_is_an_array():
    np.testing.assert_array_equal(array_of(np.ma.masked_array(X, X > 99), "data"), X)


def test_x_and_y_in_a_list_are_told_apart_from_two_inputs():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"x is a list.* x with its labels is a tuple, \(x, y\)"):
        Trainer(model, loss="mse").evaluate([X, Y])


def test_a_list_of_batches_without_a_batch_size_is_told_apart():
    with pytest.raises(ValueError, match=r"batch_size= is needed.* x is a list"):
        open_data([(X, Y), (X, Y)])


def test_frames_and_series_are_read_by_their_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5], "c": [True, False, True]})
    arrays = source((frame, pandas.Series([1, 2, 3]))).arrays
    np.testing.assert_array_equal(arrays[0], [[1, 0.5, 1], [2, 1.5, 0], [3, 2.5, 1]])
    missing = pandas.DataFrame({"a": pandas.array([1, None, 3], dtype="Int64")})
    np.testing.assert_array_equal(source((missing,)).arrays[0][:, 0], [1, np.nan, 3])


def test_columns_that_are_no_numbers_are_named():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": ["u", "v"], "c": pandas.Categorical(["u", "v"])})
    with pytest.raises(TypeError, match=r"DataFrame with 'b' \(\w+\), 'c' \(category\), no number"):
        source((frame,))


def test_rows_of_the_same_labels_in_another_order_are_refused():
    pandas = pytest.importorskip("pandas")
    frame, series = pandas.DataFrame(X), pandas.Series(Y[:, 0])
    with pytest.raises(ValueError, match=r"x and y have the same row labels.*y.loc\[x.index\]"):
        source((frame, series[::-1]))
    shuffled = [4, 2, 0, 1, 3, 5]
    aligned = source((frame.loc[shuffled], series.loc[shuffled])).arrays
    np.testing.assert_array_equal(aligned[0][:, 0], aligned[1])
    source((frame, series.rename(lambda row: row + 100)))  # other labels: by position, as in Keras


def test_tensors_of_torch_are_read_and_loaders_refused():
    torch = pytest.importorskip("torch")
    from torch.utils.data import DataLoader, TensorDataset

    x, y = torch.tensor(X), torch.tensor(Y)
    np.testing.assert_array_equal(source((x, y)).arrays[0], X)
    with pytest.raises(TypeError, match=r"that requires grad.*Write tensor.detach\(\).cpu\(\)"):
        source((x.requires_grad_(), y))
    for data in (DataLoader(TensorDataset(x, y), 2), TensorDataset(x, y)):
        with pytest.raises(TypeError, match=rf"data is a {type(data).__name__} of torch. Write tf"):
            source(data)
