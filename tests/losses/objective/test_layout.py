"""The layout of terms as vectors, by hand: sums in, values and the total's derivatives out."""

import numpy as np
import pytest
import tensorflow as tf

from losses.objective import Layout, Ratio
from losses.objective.layout import STACKED

# a mean 6 / 3, a sum 5, and the root of 8 / 2 and 18 / 2 added up
MEAN = Ratio(tf.constant(6.0), tf.constant(3.0))
SUM = Ratio(tf.constant(5.0))
ROOTS = Ratio(tf.constant([8.0, 18.0]), tf.constant(2.0), after=lambda m: tf.reduce_sum(tf.sqrt(m)))
TERMS = {"mean": MEAN, "sum": SUM, "roots": ROOTS}


def test_the_sums_of_all_terms_stand_one_after_another():
    layout = Layout.of(TERMS)
    assert layout.names == ("mean", "sum", "roots")
    assert (layout.sizes, layout.size) == ([1, 1, 2], 4)
    assert layout.of_sum.tolist() == [0, 1, 2, 2]
    numerators, denominators = layout.pack(TERMS)
    assert numerators.numpy().tolist() == [6.0, 5.0, 8.0, 18.0]
    assert denominators.numpy().tolist() == [3.0, 0.0, 2.0, 2.0]


def test_values_of_equal_length_are_summed_at_once_wherever_they_stand():
    rows = np.random.default_rng(0).normal(size=(9, 3)).astype("float32")
    lengths = [3, 3, 3, 3, 2, 3, None, 3, 3]  # the first four stand in a row

    def terms_of(values):
        parts = {f"of_{n}": values[n] if k else values[n, 0] for n, k in enumerate(lengths)}
        cut = {name: part[: lengths[n]] for n, (name, part) in enumerate(parts.items()) if n != 6}
        terms = {name: Ratio.of_examples(part) for name, part in cut.items()}
        return dict(sorted({**terms, "of_6": Ratio(parts["of_6"] * 5, tf.constant(2.0))}.items()))

    @tf.function
    def packed(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            terms = terms_of(values)
            numerators, denominators = Layout.of(terms).pack(terms)
            total = tf.reduce_sum(numerators * tf.range(1.0, 10))
        return numerators, denominators, tape.gradient(total, values)

    numerators, denominators, gradient = packed(tf.constant(rows))
    sums = [rows[n, :k].sum() if k else 5 * rows[n, 0] for n, k in enumerate(lengths)]
    np.testing.assert_allclose(numerators, sums, rtol=1e-6, atol=1e-6)
    assert denominators.numpy().tolist() == [k or 2 for k in lengths]
    counted = np.array(
        [[(n + 1) * (k is not None and j < k) for j in range(3)] for n, k in enumerate(lengths)],
        "float32",
    )
    counted[6, 0] = 7 * 5
    np.testing.assert_allclose(gradient, counted, rtol=1e-6)
    nodes = packed.get_concrete_function(tf.constant(rows)).graph.get_operations()
    stacks = [node for node in nodes if node.type == "Pack" and len(node.inputs) == STACKED]
    assert len(stacks) == 1


def test_a_numerator_or_what_it_is_the_sum_of_must_be_given():
    assert float(Ratio(None, 4.0, values=[1.0, 2.0, 3.0]).value()) == 1.5
    with pytest.raises(TypeError, match=r"no numerator\. Give the sum"):
        Ratio(None, 2.0)
    alike = Ratio(None, 1.0, values=[1.0, 2.0], alike=True)
    assert [float(alike.scaled(k).numerator) for k in (0.0, 1.0)] == [0.0, 3.0]


def test_the_values_are_divided_and_then_go_through_what_follows():
    layout = Layout.of(TERMS)
    assert not layout.linear and Layout.of({"mean": MEAN, "sum": SUM}).linear
    raw = layout.raw(*layout.pack(TERMS))
    np.testing.assert_allclose(raw, [2.0, 5.0, 2.0 + 3.0], rtol=1e-6)


def test_a_mean_over_nothing_is_0_and_a_sum_over_nothing_too():
    layout = Layout.of({"mean": MEAN, "sum": SUM})
    assert layout.raw(tf.zeros([2]), tf.zeros([2])).numpy().tolist() == [0.0, 0.0]


def test_the_cotangents_are_the_derivatives_of_the_weighted_total():
    layout = Layout.of(TERMS)
    weights = tf.constant([10.0, 0.5, 2.0])
    raw, cotangents = layout.raw_and_cotangents(*layout.pack(TERMS), weights)
    np.testing.assert_allclose(raw, [2.0, 5.0, 5.0], rtol=1e-6)
    # d sqrt(n / 2) / dn = 1 / (4 sqrt(n / 2)): 1/8 and 1/12, times the weight 2
    np.testing.assert_allclose(cotangents, [10 / 3, 0.5, 2 / 8, 2 / 12], rtol=1e-6)


def test_linear_terms_have_the_same_cotangents_without_a_tape():
    linear = {"mean": MEAN, "sum": SUM}
    layout = Layout.of(linear)
    raw, cotangents = layout.raw_and_cotangents(*layout.pack(linear), tf.constant([10.0, 0.5]))
    assert raw.numpy().tolist() == [2.0, 5.0]
    np.testing.assert_allclose(cotangents, [10 / 3, 0.5], rtol=1e-6)


def test_each_terms_part_is_its_numerators_times_their_cotangents():
    parts = Layout.of(TERMS).parts(TERMS, tf.constant([2.0, 3.0, 0.5, 1.0]))
    assert [float(part) for part in parts] == [12.0, 15.0, 4.0 + 18.0]


def test_an_accumulated_step_counts_by_its_denominators():
    layout = Layout.of({"mean": MEAN, "sum": SUM})
    first, second = tf.constant([1.0, 0.0]), tf.constant([3.0, 0.0])
    assert layout.by_term(first).numpy().tolist() == [1.0, 1.0]
    mean = (layout.by_term(first) + layout.by_term(second)) / 2
    factors = [layout.accumulation_factors(step, mean).numpy().tolist() for step in (first, second)]
    assert factors == [[0.5, 1.0], [1.5, 1.0]]
    # 4 / 1 and 6 / 3: the mean over both steps is (4 + 6) / (1 + 3)
    assert (factors[0][0] * 4 / 1 + factors[1][0] * 6 / 3) / 2 == 10 / 4


def test_denominators_that_are_constants_are_known_when_traced():
    layout = Layout.of(TERMS)
    known = []

    @tf.function
    def trace(count):
        known.append(layout.static_denominators(TERMS))
        known.append(layout.static_denominators({**TERMS, "mean": Ratio(count, count)}))

    trace(tf.constant(3.0))
    assert known[0].tolist() == [3.0, 0.0, 2.0, 2.0] and known[1] is None


def test_sums_of_an_unknown_shape_are_an_error():
    @tf.function(input_signature=[tf.TensorSpec([None])], autograph=False)
    def trace(sums):
        Layout.of({"a": Ratio(sums, after=tf.reduce_sum)})

    with pytest.raises(ValueError, match=r"Term 'a' has sums of the unknown shape \(None,\)"):
        trace(tf.ones([2]))
