"""Rows as two factors: their Gramian and weighted sum are those of the rows written out."""

import numpy as np
import pytest
import tensorflow as tf

from trainer.balancing.direction import unscaled, weighted_sum
from trainer.balancing.jacobian import gramian
from trainer.balancing.rows import FactoredRows, Stacked, Use, pays

RANDOM = np.random.default_rng(0)
MATRIX = tf.Variable(np.zeros([5, 3], "float32"))
FACTORS = np.array([0.5, -2.0], "float32")


def draw(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def factored(uses, gradients, matrix):
    """Rows of gradients by the outputs of uses: for each term a list of them."""
    by_use = zip(*gradients, strict=True)
    stacked = [Stacked.of(dict(enumerate(of_use))) for of_use in by_use]
    return FactoredRows.of(uses, stacked, len(gradients), matrix)


def check(rows, written, jit=None):
    """Compares with rows that numpy wrote out, [m, n_in, n_out]."""

    @tf.function(jit_compile=jit, autograph=False)
    def derive():
        return gramian([rows]), weighted_sum({"w": rows}, FACTORS)["w"]

    inner, direction = derive()
    flat = written.reshape(len(written), -1).astype("float64")
    np.testing.assert_allclose(inner, flat @ flat.T, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(direction, np.tensordot(FACTORS, written, 1), rtol=1e-5, atol=1e-6)


def test_two_products_on_paper():
    # one example, a = (1, 2): the gradients a d of d = 3 and -1 are (3, 6) and (-1, -2)
    use = Use(tf.constant([[1.0, 2.0]]), tf.zeros([1, 1]))
    by_output = [[tf.constant([[3.0]])], [tf.constant([[-1.0]])]]
    rows = factored([use], by_output, tf.Variable([[0.0], [0.0]]))
    np.testing.assert_allclose(gramian([rows]), [[45, -15], [-15, 5]], rtol=1e-6)
    np.testing.assert_array_equal(rows.weighted(tf.constant([1.0, 2.0])), [[1], [2]])


@pytest.mark.parametrize("jit", [None, True])
def test_rows_of_a_product_are_those_of_numpy(jit):
    inputs, by_output = draw(4, 5), draw(2, 4, 3)
    rows = factored([Use(tf.constant(inputs), tf.zeros([4, 3]))], [[g] for g in by_output], MATRIX)
    check(rows, np.einsum("bi,mbo->mio", inputs, by_output), jit)


def test_uses_of_one_matrix_add_up_with_their_inner_products():
    inputs, by_output = draw(2, 4, 5), draw(2, 2, 4, 3)  # [uses, ...], [terms, uses, ...]
    uses = [Use(tf.constant(each), tf.zeros([4, 3])) for each in inputs]
    rows = factored(uses, [list(of_term) for of_term in by_output], MATRIX)
    check(rows, np.einsum("ubi,mubo->mio", inputs, by_output))


def test_a_use_or_a_matrix_that_a_term_does_not_reach_gives_zeros():
    inputs, by_output = draw(2, 4, 5), draw(4, 3)
    uses = [Use(tf.constant(each), tf.zeros([4, 3])) for each in inputs]
    rows = factored(uses, [[None, tf.constant(by_output)], [None, None]], MATRIX)
    check(rows, np.stack([inputs[1].T @ by_output, np.zeros([5, 3], "float32")]))


@pytest.mark.parametrize("jit", [None, True])
def test_rows_of_a_look_up_are_those_of_numpy_whichever_repeat(jit):
    places, by_output = np.array([[4, 0, 4], [4, 1, 0]]), draw(2, 2, 3, 3)
    use = Use(tf.constant(places), tf.zeros([2, 3, 3]))
    rows = factored([use], [[tf.constant(each)] for each in by_output], MATRIX)
    written = np.zeros([2, 5, 3], "float32")
    for term in range(2):
        np.add.at(written[term], places, by_output[term])
    check(rows, written, jit)


def test_gramians_of_factors_and_of_written_rows_add_up():
    inputs, by_output, bias = draw(4, 5), draw(2, 4, 3), draw(2, 3)
    kernel = np.einsum("bi,mbo->mio", inputs, by_output)
    rows = FactoredRows(tf.constant(inputs), tf.constant(by_output), tf.zeros([5, 0]))
    flat = np.concatenate([kernel.reshape(2, -1), bias], 1).astype("float64")
    np.testing.assert_allclose(gramian([rows, tf.constant(bias)]), flat @ flat.T, rtol=1e-6)


def test_gradients_that_nearly_cancel_lose_no_more_than_rows_do():
    # 64 examples whose gradients add up to a thousandth of each: A A^T in float32 would lose them
    inputs, by_output = np.repeat(draw(1, 5), 64, 0), draw(2, 64, 3)
    by_output -= by_output.mean(1, keepdims=True) * (1 - 1e-3)
    rows = FactoredRows(tf.constant(inputs), tf.constant(by_output), tf.zeros([5, 0]))
    exact = np.einsum("bi,mbo->mio", inputs.astype("float64"), by_output.astype("float64"))
    flat = exact.reshape(2, -1)
    np.testing.assert_allclose(gramian([rows]), flat @ flat.T, rtol=1e-3)
    written = np.stack([inputs.T @ each for each in by_output]).reshape(2, -1).astype("float64")
    lost = np.abs(written @ written.T - flat @ flat.T).max()
    assert np.abs(gramian([rows]) - flat @ flat.T).max() < 20 * lost + 1e-9


@pytest.mark.parametrize("jit", [None, True])
def test_inputs_that_are_nought_or_not_finite_are_no_error(jit):
    @tf.function(jit_compile=jit, autograph=False)
    def inner(inputs):
        rows = FactoredRows(inputs, tf.ones([2, 4, 3]), tf.zeros([5, 0]))
        return gramian([rows])

    np.testing.assert_allclose(inner(tf.zeros([4, 5])), np.zeros([2, 2]), atol=1e-9)
    assert np.isnan(inner(tf.fill([4, 5], np.nan))).all()


def test_a_loss_scale_is_taken_off():
    rows = FactoredRows(tf.constant([[1.0]]), tf.constant([[[8.0]], [[4.0]]]), tf.zeros([1, 0]))
    found = unscaled({"w": rows, "b": tf.constant([4.0])}, {"w": tf.constant(4.0)})
    np.testing.assert_array_equal(found["w"].cotangents, [[[2]], [[1]]])
    np.testing.assert_array_equal(found["b"], [4])


def product(places, height, width):
    return [Use(tf.zeros([places, height]), tf.zeros([places, width]))], (height, width)


def test_wide_layers_pay_and_layers_below_the_batch_do_not():
    assert pays(*product(64, 1024, 1024), terms=4)
    assert not pays(*product(1024, 64, 64), terms=4)
    assert not pays(*product(64, 1024, 1024), terms=1)  # one row is one backward pass
    assert not pays([], (1024, 1024), terms=4)


def test_a_table_pays_where_few_of_its_rows_are_looked_up():
    use = [Use(tf.zeros([64], tf.int32), tf.zeros([64, 16]))]
    assert pays(use, (10000, 16), terms=4)
    assert not pays(use, (64, 16), terms=4)
