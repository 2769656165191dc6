"""Each example is changed by its own seed, whoever draws the batch, and whenever."""

import functools
import hashlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer import Trainer
from trainer.data.augment import Augment, augmented, example_seeds

pytestmark = pytest.mark.one_in(2)

MOST = 2**31


def images(examples=8, height=2, width=3):
    values = np.arange(examples * height * width, dtype="float32")
    return values.reshape([examples, height, width, 1])


def flip(example, seed):
    return tf.image.stateless_random_flip_left_right(example, seed)


def noise(example, seed):
    return example + tf.random.stateless_normal(tf.shape(example), seed)


def draws(examples=4, position=0, seed=0):
    """float32 [examples], one uniform draw for each example."""
    draw = Augment(lambda example, seed: tf.random.stateless_uniform([], seed), seed)
    return draw(tf.zeros([examples]), tf.constant(position, tf.int64)).numpy()


# the seeds


def seeds(seed, position, examples):
    return example_seeds(seed, tf.constant(position, tf.int64), tf.constant(examples)).numpy()


def by_hand(seed, position, place):
    """The cipher in Python's whole numbers."""
    digest = hashlib.sha256(str(seed).encode()).digest()
    left, right = position, place
    for k in range(4):
        x = right ^ int.from_bytes(digest[4 * k : 4 * k + 4], "little")
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = ((x ^ (x >> shift)) * factor) % 2**32
        left, right = right, left ^ x ^ (x >> 16)
    return [half - 2**32 if half >= 2**31 else half for half in (left, right)]


@given(st.integers(-(10**9), 10**9), st.integers(0, 2**32 - 1), st.integers(1, 5))
@settings(deadline=None, max_examples=25)
def test_the_seeds_are_those_of_the_cipher_by_hand(seed, position, examples):
    expected = [by_hand(seed, position, place) for place in range(examples)]
    np.testing.assert_array_equal(seeds(seed, position, examples), expected)


@given(st.integers(), st.sets(st.integers(0, MOST - 1), min_size=2, max_size=20))
@settings(deadline=None, max_examples=10)
def test_no_two_examples_of_a_run_share_a_seed(seed, positions):
    found = np.concatenate([seeds(seed, position, 1000) for position in positions])
    assert len({tuple(pair) for pair in found.tolist()}) == 1000 * len(positions)


def test_neighbours_on_the_way_of_a_function_that_counts_its_seed_up_are_apart():
    """With seeds (position, place), the second draw of an example is the next one's first."""
    found = {tuple(pair) for p in range(50) for pair in seeds(0, p, 50).tolist()}
    for step in ([0, 1], [1, 0], [1, 1]):
        assert not found & {tuple(np.add(pair, step).tolist()) for pair in found}


def test_the_bits_of_the_seeds_are_even():
    bits = np.unpackbits(seeds(3, 5, 4096).view(np.uint8), axis=None).reshape(4096, 64)
    # 64 coins of 4096 throws each: 5 standard deviations are 0.039
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.039


# what is drawn


def test_flips_are_the_image_or_its_mirror_image_about_half_each():
    x = images(400)
    out = Augment(flip)(x, tf.constant(7, tf.int64)).numpy()
    same = (out == x).all(axis=(1, 2, 3))
    mirrored = (out == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same ^ mirrored).all()
    assert abs(same.mean() - 0.5) < 0.125  # 5 standard deviations of 400 coins


def test_draws_are_uniform_over_the_examples_of_a_batch_and_over_positions():
    draw = Augment(lambda example, seed: tf.random.stateless_uniform([], seed))
    batches = np.array([draw(tf.zeros([20]), tf.constant(p, tf.int64)) for p in range(200)])
    for found in (batches.ravel(), batches[:, 0], batches[:, 19], draws(1000)):
        # largest distance of the cumulative distribution: at 2 / sqrt(n), 1 in 1500 by chance
        steps = np.arange(len(found)) / len(found)
        assert np.abs(np.sort(found) - steps).max() < 2 / np.sqrt(len(found))


def test_the_same_batch_is_drawn_the_same_and_every_other_one_otherwise():
    np.testing.assert_array_equal(draws(4, 9), draws(4, 9))
    found = [*draws(4, 9), *draws(4, 10), *draws(4, 9 + 2**31), *draws(4, 9, seed=1)]
    assert len(set(found)) == 16


def test_a_part_of_the_batch_draws_what_it_did_in_the_whole_one():
    np.testing.assert_array_equal(draws(6)[:4], draws(4))


@pytest.mark.parametrize("static", [True, False])
def test_an_example_gets_what_the_function_returns_for_its_seed(static):
    x = images(5)
    augment = Augment(noise, seed=3)
    spec = tf.TensorSpec([5 if static else None, 2, 3, 1])
    traced = tf.function(lambda x: augment(x, tf.constant(6, tf.int64)), autograph=False)
    out = traced.get_concrete_function(spec)(x)
    for place in range(5):
        seed = tf.constant(by_hand(3, 6, place))
        np.testing.assert_array_equal(out[place], noise(x[place], seed))


# what it is applied to


def test_every_structure_of_data_stays_what_it_is():
    data = ({"image": images(4), "size": np.arange(4)}, np.arange(4.0), np.ones(4, "float32"))
    data = tf.nest.map_structure(tf.convert_to_tensor, data)

    def function(example, seed):
        x, y, weight = example
        assert x["image"].shape == (2, 3, 1)
        assert (y.shape, seed.shape, seed.dtype) == ((), (2,), tf.int32)
        return {**x, "image": flip(x["image"], seed)}, y + 1, weight

    x, y, weight = Augment(function)(data, tf.constant(0, tf.int64))
    assert x["image"].shape == (4, 2, 3, 1)
    np.testing.assert_array_equal(x["size"], np.arange(4))
    np.testing.assert_array_equal(y, np.arange(4.0) + 1)
    np.testing.assert_array_equal(weight, np.ones(4))


def test_x_alone_in_a_tuple_stays_in_it():
    (out,) = Augment(lambda example, seed: (noise(example[0], seed),))((images(2),), 0)
    assert out.shape == (2, 2, 3, 1)


def test_a_batch_may_hold_one_example():
    np.testing.assert_array_equal(draws(1), draws(4)[:1])


# how it runs


def without_draws(example, seed):
    """A draw that `tf.vectorized_map` can convert: a number between 0 and 1 made of the seed."""
    return example * tf.cast(tf.bitwise.bitwise_and(seed[0], 1023), tf.float32) / 1024


def operations(function, batch, jit_compile=None):
    traced = tf.function(
        lambda x: Augment(function)(x, tf.constant(0, tf.int64)),
        autograph=False,
        jit_compile=jit_compile,
    )
    graph = traced.get_concrete_function(batch).graph.as_graph_def()
    return {n.op for f in [graph.library.function] for g in f for n in g.node_def}


def test_a_function_that_can_be_converted_runs_once_for_the_batch():
    assert not operations(without_draws, images()) & {"While", "StatelessWhile"}
    out = Augment(without_draws)(images(), tf.constant(0, tf.int64))
    factors = (seeds(0, 0, 8)[:, 0] & 1023) / 1024
    np.testing.assert_allclose(out, images() * factors[:, None, None, None], rtol=1e-6)


@pytest.mark.parametrize("function", [noise, flip])
def test_one_that_cannot_runs_example_by_example_without_a_word(function, caplog):
    caplog.set_level(0, logger="tensorflow")
    assert operations(function, images()) & {"While", "StatelessWhile"}
    assert not caplog.records


@pytest.mark.parametrize("function", [noise, flip, without_draws])
def test_a_whole_loop_of_xla_augments_as_a_single_batch_outside_does(function):
    x = tf.constant(images(6))
    augment = functools.partial(Augment(function, seed=2), xla=True)

    @tf.function(jit_compile=True, autograph=False)
    def loop(start, count):
        def body(i, total):
            batch = tf.slice(x, [0, 0, 0, 0], [3, 2, 3, 1])
            return i + 1, total + augment(batch, start + tf.cast(i, tf.int64))

        zero = tf.zeros([], tf.int32), tf.zeros([3, 2, 3, 1])
        return tf.while_loop(lambda i, _: i < count, body, zero)[1]

    start = tf.constant(4, tf.int64)
    parts = [augment(x[:3], tf.constant(position, tf.int64)) for position in (4, 5, 6)]
    np.testing.assert_allclose(loop(start, tf.constant(3)), sum(parts), rtol=1e-6)
    # and a loop that starts in the midst, as a resumed run's
    np.testing.assert_array_equal(loop(start + 2, tf.constant(1)), parts[2])


def test_it_is_compiled_where_the_loop_is():
    augment = Augment(noise)
    plain = augment(images(), 0)
    np.testing.assert_array_equal(plain, Augment(noise)(images(), 0, xla=False))
    compiled = augment(images(), 0, xla=True)
    np.testing.assert_array_equal(compiled, Augment(noise, 0)(images(), 0, xla=True))
    np.testing.assert_array_equal(augment(images(), 0), plain)


def test_a_batch_of_unknown_size_is_compiled_as_well():
    augment = functools.partial(Augment(noise), xla=True)
    spec = tf.TensorSpec([None, 2, 3, 1])
    traced = tf.function(lambda x: augment(x, tf.constant(0, tf.int64)), autograph=False)
    out = traced.get_concrete_function(spec)(tf.constant(images(5)))
    np.testing.assert_allclose(out, augment(images(5), 0), rtol=1e-6)


def test_the_function_is_traced_a_few_times_whatever_the_number_of_batches():
    traces = []

    def function(example, seed):
        traces.append(1)
        return noise(example, seed)

    augment = Augment(function)
    for position in range(5):
        augment(images(), position)
    assert len(traces) <= 3  # to check, to try whether it converts, to run


# what is refused


@pytest.mark.parametrize(
    ("function", "error", "words"),
    [
        (lambda e, s: e[0], TypeError, r"float32 \[2, 3, 1\] for an example \(float32"),
        (lambda e, s: [e[0], e[1]], TypeError, r"returned \[float32 .*same structure"),
        (lambda e, s: None, TypeError, "returned None"),
        (lambda e, s: (e[0][:1], e[1]), ValueError, r"float32 \[1, 3, 1\] where the .*\[2, 3, 1\]"),
        (lambda e, s: (tf.cast(e[0], tf.int32), e[1]), ValueError, r"int32 .* tf\.cast"),
        (lambda e, s: (e[0], tf.one_hot(e[1], 3)), ValueError, r"float32 \[3\] where .*int32 \[\]"),
        (lambda e, s: (e[0] + tf.random.normal([2, 3, 1]), e[1]), ValueError, "RandomStandardNor"),
        (lambda e, s: (tf.random.shuffle(e[0]), e[1]), ValueError, "RandomShuffle"),
    ],
)
def test_what_the_function_must_not_do_is_told(function, error, words):
    with pytest.raises(error, match=words):
        Augment(function)((images(), np.zeros(8, "int32")), tf.constant(0, tf.int64))


def test_a_generator_that_keeps_a_state_is_refused():
    generator = tf.random.Generator.from_seed(0)
    with pytest.raises(ValueError, match="RngReadAndSkip, which does not follow from the seed"):
        Augment(lambda e, s: e + generator.normal([2, 3, 1]))(images(), tf.constant(0, tf.int64))


def test_an_error_of_the_function_itself_comes_out_as_it_is():
    def function(example, seed):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Augment(function)(images(), tf.constant(0, tf.int64))


@pytest.mark.parametrize("function", ["flip", 3])
def test_what_is_no_function_is_refused(function):
    with pytest.raises(TypeError, match="give a function"):
        Augment(function)


@pytest.mark.parametrize("seed", [1.5, "1", True, None])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ValueError, match="whole number"):
        Augment(flip, seed)


def test_arrays_are_augmented_a_pipeline_is_refused():
    arrays = types.SimpleNamespace(indexed=True, what="data", augment=None)
    assert augmented(arrays, None, 0).augment is None
    assert augmented(arrays, flip, 5).augment == Augment(flip, 5)
    pipeline = types.SimpleNamespace(indexed=False, what="data")
    assert augmented(pipeline, None, 0) is pipeline
    with pytest.raises(ValueError, match=r"data is a tf\.data\.Dataset: augment in the pipeline"):
        augmented(pipeline, flip, 0)


def test_what_the_refusal_of_a_pipeline_recommends_works():
    data = (images(6), np.arange(6))
    dataset = tf.data.Dataset.from_tensor_slices(data)

    def function(example, seed):
        x, y = example
        return noise(x, seed), y

    def drawn(skipped):
        zipped = tf.data.Dataset.zip(dataset.repeat(), tf.data.Dataset.counter())
        mapped = zipped.map(lambda example, i: function(example, tf.stack([0, i])))
        return next(iter(mapped.batch(6).skip(skipped)))

    first, second = drawn(0)[0], drawn(1)[0]
    assert (first != second).numpy().any(axis=(1, 2, 3)).all()  # other draws in the next epoch
    np.testing.assert_array_equal(second, drawn(1)[0])


def test_equal_functions_and_seeds_are_equal_so_that_a_loop_need_not_be_traced_again():
    assert Augment(flip, 1) == Augment(flip, 1)
    assert hash(Augment(flip, 1)) == hash(Augment(flip, 1))
    assert Augment(flip, 1) != Augment(flip, 2)
    assert Augment(flip, 1) != Augment(noise, 1)
    assert Augment(flip, 1) != flip


# under Trainer.fit


def noisy(example, seed):
    x, y = example
    # whole numbers of Philox are the same with XLA and without
    bits = tf.random.stateless_uniform([3], seed, 0, 8, tf.int32, alg="philox")
    return x + tf.cast(bits, tf.float32) / 8, y


def trained(data, steps, workdir=None, augment=noisy, shuffle=True, fit=(), **arguments):
    keras.utils.set_random_seed(1)
    trainer = Trainer(
        lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss="mse",
        workdir=workdir,
        seed=4,
        **arguments,
    )
    options = dict(batch_size=4, shuffle=shuffle, augment=augment, verbose=False, **dict(fit))
    history = trainer.fit(data, steps=steps, log_every=1, **options)
    weights = [np.array(w) for w in trainer.model.get_weights()]
    return [row["total"] for row in history.rows], weights


@pytest.fixture
def data():
    return np.arange(30, dtype="float32").reshape(10, 3) / 10, np.ones([10, 2], "float32")


def test_the_same_run_twice_is_the_same_and_one_without_augment_is_not(data):
    runs = [trained(data, 6) for _ in range(2)]
    assert runs[0][0] == runs[1][0]
    assert trained(data, 1, augment=None)[0][0] != runs[0][0][0]


def test_the_first_batch_is_the_examples_changed_by_their_seeds(data):
    totals, _ = trained(data, 1, shuffle=False)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    changed = [
        noisy((data[0][place], 0), tf.constant(by_hand(4, 0, place)))[0] for place in range(4)
    ]
    expected = np.mean((model(np.stack(changed)).numpy() - 1) ** 2)
    np.testing.assert_allclose(totals[0], expected, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_resumed_run_draws_what_the_undisturbed_one_did(data, tmp_path, jit_compile):
    both = dict(jit_compile=jit_compile)
    _, undisturbed = trained(data, 9, tmp_path / "a", **both)
    trained(data, 5, tmp_path / "b", **both)
    _, resumed = trained(data, 9, tmp_path / "b", **both)
    for one, other in zip(undisturbed, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_steps_per_call_and_xla_change_nothing_of_what_is_drawn(data):
    totals, _ = trained(data, 8)
    np.testing.assert_allclose(trained(data, 8, fit={"steps_per_loop": 3})[0], totals, rtol=1e-6)
    np.testing.assert_allclose(trained(data, 8, jit_compile=True)[0], totals, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_two_replicas_train_on_the_augmented_batch_of_one(data, two_replicas, jit_compile):
    one, _ = trained(data, 4)
    two, _ = trained(data, 4, strategy=two_replicas, jit_compile=jit_compile)
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_accumulated_steps_read_the_same_augmented_batches_ahead(data):
    """Weights that augment= changes count in a window as those of the updates do."""

    def weighed(example, seed):
        x, y, weight = noisy(example[:2], seed) + example[2:]
        return x, y, weight * tf.cast(1 + tf.math.floormod(seed[0], 3), tf.float32)

    def run(accumulate, steps, data, augment):
        keras.utils.set_random_seed(1)
        trainer = Trainer(
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]),
            optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=accumulate),
            loss=keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
        )
        batch = len(data[0]) // steps
        trainer.fit(
            data, steps=steps, batch_size=batch, shuffle=False, augment=augment, verbose=False
        )
        return np.concatenate([np.ravel(w) for w in trainer.model.get_weights()])

    data = (*data, np.ones(10, "float32"))
    halves = (tuple(a[:5] for a in data), tuple(a[5:] for a in data))
    parts = [Augment(weighed)(half, position) for position, half in enumerate(halves)]
    whole = tf.nest.map_structure(lambda a, b: np.concatenate([a, b]), *parts)
    np.testing.assert_allclose(
        run(2, 2, data, weighed), run(None, 1, whole, None), rtol=1e-5, atol=1e-6
    )


def test_a_pipeline_is_refused_by_fit_before_anything_is_built(data):
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(4)
    trainer = Trainer(lambda: keras.Sequential([keras.layers.Dense(2)]), loss="mse")
    with pytest.raises(ValueError, match="augment= is for arrays, but data is"):
        trainer.fit(dataset, steps=2, augment=noisy)
    assert not trainer.model.built
