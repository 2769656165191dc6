"""Data per term: several named sources, each with its own batches, in one objective."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Nonfinite, Sources, Trainer

RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(40, n)).astype(np.float32) for n in (3, 1))
U = RNG.normal(size=(90, 3)).astype(np.float32)
B, YB = (RNG.normal(size=(6, n)).astype(np.float32) for n in (3, 1))
BATCHES = {"labelled": 8, "unlabelled": 15, "boundary": 3}
STEPS = 20


def model():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input([3]), *layers])


def small(step):
    return tf.reduce_sum(tf.square(step.y_pred), -1)


def boundary(step):
    return tf.square(step.model(step["boundary"].x) - step["boundary"].y)[:, 0]


def make(**settings):
    terms = [
        losses.term(small, name="small", source="unlabelled", weight=0.3),
        losses.term(boundary, weight=0.7),
    ]
    settings = {"optimizer": keras.optimizers.SGD(0.05), "loss": "mse", **settings}
    return Trainer(model, terms=terms, **settings)


def data():
    return Sources(labelled=(X, Y), unlabelled=(U,), boundary=(B, YB))


def trained(sources=None, steps=STEPS, **settings):
    trainer = make(**settings)
    fit = {"batch_size": BATCHES, "shuffle": False, "log_every": 5, "verbose": False}
    history = trainer.fit(data() if sources is None else sources, steps=steps, **fit)
    return trainer, history


def batch(array, size, number):
    per_epoch = -(-len(array) // size)
    start = number % per_epoch * size
    return array[start : start + size]


@pytest.fixture(scope="module")
def by_hand():
    """The same steps in a hand-written loop: the rows' means, and the weights."""
    network, sums = model(), []
    optimizer = keras.optimizers.SGD(0.05)
    for number in range(STEPS):
        parts = [(X, 8), (Y, 8), (U, 15), (B, 3), (YB, 3)]
        x, y, u, b, yb = (batch(array, size, number) for array, size in parts)
        with tf.GradientTape() as tape:
            terms = [
                tf.reduce_mean(tf.square(network(x) - y)),
                tf.reduce_mean(tf.square(network(u))),
                tf.reduce_mean(tf.square(network(b) - yb)),
            ]
            total = terms[0] + 0.3 * terms[1] + 0.7 * terms[2]
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
        sums.append([float(term) for term in terms])
    return np.reshape(sums, [-1, 5, 3]).mean(1), network.get_weights()


def check(trainer, history, by_hand, weights=5e-6):
    names = ["mean_squared_error", "small", "boundary"]
    rows = [[row[f"raw/{name}"] for name in names] for row in history.rows]
    np.testing.assert_allclose(rows, by_hand[0], rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(trainer.model.get_weights(), by_hand[1], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=weights)


def test_each_term_is_a_mean_over_its_own_source_as_in_a_loop_by_hand(by_hand):
    trainer, history = trained()
    check(trainer, history, by_hand)
    row = history.rows[-1]
    total = row["raw/mean_squared_error"] + 0.3 * row["raw/small"] + 0.7 * row["raw/boundary"]
    assert abs(row["total"] - total) < 1e-6


@pytest.mark.parametrize("settings", [{"jit_compile": True}, {"run_eagerly": True}])
def test_compiled_or_in_python_it_is_the_same(by_hand, settings):
    check(*trained(**settings), by_hand)


def test_two_replicas_give_what_one_does_though_their_shares_are_uneven(by_hand, two_replicas):
    check(*trained(strategy=two_replicas), by_hand)  # 15 are 7 and 8, and 3 are 1 and 2


def test_a_replica_without_an_example_of_a_source_counts_nothing(two_replicas):
    sizes = {"labelled": 8, "unlabelled": 1, "boundary": 1}
    rows = [
        make(strategy=strategy)
        .fit(data(), batch_size=sizes, shuffle=False, steps=4, log_every=4, verbose=False)
        .rows[-1]
        for strategy in (two_replicas, "one_device")
    ]
    for name in ("raw/small", "raw/boundary", "total"):
        assert abs(rows[0][name] - rows[1][name]) < 1e-6


def pipelines():
    def of(*arrays, size):
        arrays = arrays if len(arrays) > 1 else arrays[0]
        return tf.data.Dataset.from_tensor_slices(arrays).batch(size)

    return Sources(
        labelled=of(X, Y, size=8), unlabelled=of(U, size=15), boundary=(B, YB)
    )  # arrays and pipelines mix


def test_pipelines_and_arrays_mix(by_hand):
    trainer = make()
    history = trainer.fit(
        pipelines(),
        batch_size={"boundary": 3},
        shuffle=False,
        steps=STEPS,
        log_every=5,
        verbose=False,
    )
    check(trainer, history, by_hand)


@pytest.mark.parametrize("source", [data, pipelines])
def test_an_interrupted_run_goes_on_with_each_source_at_its_place(tmp_path, source):
    fit = {"batch_size": BATCHES if source is data else {"boundary": 3}, "verbose": False}
    whole = make()
    whole.fit(source(), steps=17, **fit)
    for steps in (7, 11, 17):  # 7 labelled batches are more than an epoch of five
        parts = make(workdir=tmp_path / "run")
        parts.fit(source(), steps=steps, **fit)
    for mine, theirs in zip(parts.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_accumulated_steps_count_what_each_source_holds():
    def accumulated(every, sizes, source=data):
        optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=every)
        trainer = make(optimizer=optimizer)
        trainer.fit(
            source(), batch_size=sizes, shuffle=False, steps=4 * (every or 1), verbose=False
        )
        return trainer.model.get_weights()

    # 40 and 90 are whole numbers of batches; two of 4 and 45 are one of 8 and 90
    large = accumulated(None, {"labelled": 8, "unlabelled": 90, "boundary": 6})
    small_ones = accumulated(2, {"labelled": 4, "unlabelled": 45, "boundary": 3})
    for mine, theirs in zip(small_ones, large, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_shuffled_sources_draw_every_example_once_in_an_epoch_and_apart():
    seen = {"a": [], "b": []}

    class Look(Trainer):
        def compute_terms(self, step):
            for name in seen:
                seen[name].append(step[name].x.numpy()[:, 0])
            return super().compute_terms(step)

    numbers = np.arange(12, dtype=np.float32)[:, None]
    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    trainer = Look(network, loss="mse", run_eagerly=True)
    trainer.fit(
        Sources(a=(numbers, numbers), b=(numbers, numbers)),
        batch_size={"a": 3, "b": 4},
        steps=12,
        verbose=False,
    )
    a, b = (np.concatenate(seen[name][-12:]) for name in ("a", "b"))
    for order, epochs in ((a, 3), (b, 4)):
        epochs = order.reshape(epochs, 12)
        np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(12), (len(epochs), 1)))
        assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(a[:12], b[:12])


def heads():
    keras.utils.set_random_seed(0)
    x = keras.Input([3])
    hidden = keras.layers.Dense(4, activation="tanh")(x)
    outputs = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("task_a", "task_b")}
    return keras.Model(x, outputs)


def test_losses_by_source_train_a_head_on_each_data_set(two_replicas):
    sources = Sources(task_a=(X, Y), task_b=(B, YB))
    found = []
    for strategy in ("one_device", two_replicas):
        trainer = Trainer(
            heads, optimizer="sgd", loss={"task_a": "mse", "task_b": "mae"}, strategy=strategy
        )
        trainer.fit(
            sources, batch_size={"task_a": 40, "task_b": 3}, shuffle=False, steps=3, verbose=False
        )
        values = trainer.evaluate(sources)
        outputs_a, outputs_b = (trainer.model(x) for x in (X, B))
        found.append(trainer.model.get_weights())
        a = np.mean((outputs_a["task_a"] - Y) ** 2)
        b = np.mean(np.abs(outputs_b["task_b"] - YB))
        np.testing.assert_allclose([values["raw/task_a"], values["raw/task_b"]], [a, b], rtol=1e-5)
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)


def test_labels_that_are_a_dict_of_the_outputs_make_the_keys_outputs():
    trainer = Trainer(heads, loss={"task_a": "mse", "task_b": "mse"})
    labels = {"task_a": Y, "task_b": -Y}
    trainer.build(Sources(task_a=(X, labels), task_b=(B,)), batch_size=4)
    values = trainer.evaluate((X, labels))
    expected = np.mean((trainer.model(X)["task_b"] + Y) ** 2)
    np.testing.assert_allclose(values["raw/task_b"], expected, rtol=1e-5)


def test_evaluation_of_the_main_source_alone_leaves_the_other_terms_out():
    trainer, _ = trained(steps=2)
    values = trainer.evaluate((X, Y))
    assert list(values) == [f"{kind}mean_squared_error" for kind in ()] + [
        "total",
        "terms/mean_squared_error",
        "raw/mean_squared_error",
        "weight/mean_squared_error",
    ]
    whole = trainer.evaluate(data(), batch_size={"labelled": 7, "unlabelled": 64, "boundary": 4})
    outputs = trainer.model.predict(U, verbose=0)
    np.testing.assert_allclose(whole["raw/small"], np.mean(outputs**2), rtol=1e-5)


def test_what_compute_terms_makes_of_a_source_is_said_by_its_mean(two_replicas):
    class Own(Trainer):
        def compute_terms(self, step):
            terms = super().compute_terms(step)
            if "unlabelled" in step:
                terms["u"] = step["unlabelled"].mean(small(step["unlabelled"]))
            return terms

    rows = []
    for strategy in ("one_device", two_replicas):
        trainer = Own(model, loss="mse", optimizer="sgd", strategy=strategy)
        history = trainer.fit(
            Sources(labelled=(X, Y), unlabelled=(U,)),
            batch_size={"labelled": 1, "unlabelled": 3},
            shuffle=False,
            steps=3,
            log_every=3,
            verbose=False,
        )
        rows.append(history.rows[-1])
        assert "raw/u" not in trainer.evaluate((X, Y))
    assert abs(rows[0]["raw/u"] - rows[1]["raw/u"]) < 1e-6


@pytest.mark.parametrize(
    ("make_data", "arguments", "message"),
    [
        (lambda: Sources(), {}, "holds no source"),
        (lambda: Sources(**{"a b": (X, Y)}), {}, "Source 'a b': its name"),
        (data, {"batch_size": {"labeled": 8}}, "batch_size= names the source 'labeled'; the"),
        (data, {"batch_size": {"labelled": 8}}, r"data\['unlabelled'\] is arrays, so batch_size="),
        (lambda: Sources(labelled=(X, Y[:3])), {}, r"data\['labelled'\] has parts of different"),
        (lambda: Sources(labelled=(X, Y), unlabelled=(U[:0],)), {}, "holds no examples"),
        (lambda: Sources(labelled=(X, Y)), {}, r"step\['unlabelled'\]: the data have no source"),
        (lambda: (X, Y), {"batch_size": 8}, "the data have no source of that name; they have none"),
        (data, {"augment": lambda example, seed: example}, "augment= is one function for several"),
        (lambda: Sources(labelled=(X, Y)).main("other"), {}, "names the source 'other'"),
    ],
)
def test_bad_sources_are_one_clear_error(make_data, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make().fit(make_data(), steps=2, **{"batch_size": 3, "verbose": False, **arguments})


def test_the_table_and_the_run_line_say_the_sources(capsys):
    trainer = make()
    trainer.fit(data(), batch_size=BATCHES, steps=1)
    assert "global batch labelled 8, unlabelled 15, boundary 3" in capsys.readouterr().out
    assert "small               term, of unlabelled  0.3" in trainer.describe()


def rated_by_hand(steps):
    """Adam; unlabelled at every third step, boundary at every second: the weights."""
    network, optimizer = model(), keras.optimizers.Adam(0.05)
    for number in range(steps):
        x, y = batch(X, 8, number), batch(Y, 8, number)
        with tf.GradientTape() as tape:
            total = tf.reduce_mean(tf.square(network(x) - y))
            if number % 3 == 0:
                u = batch(U, 15, number // 3)
                total += 0.3 * tf.reduce_mean(tf.square(network(u)))
            if number % 2 == 0:
                b, yb = batch(B, 3, number // 2), batch(YB, 3, number // 2)
                total += 0.7 * tf.reduce_mean(tf.square(network(b) - yb))
        variables = network.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(total, variables), variables, strict=True))
    return network.get_weights()


def rated(source, settings, steps=12, **fit):
    trainer = make(optimizer=keras.optimizers.Adam(0.05), **settings)
    fit = {"batch_size": BATCHES if source is data else {"boundary": 3}, "shuffle": False, **fit}
    sources = source().every(unlabelled=3, boundary=2)
    return trainer, trainer.fit(sources, steps=steps, log_every=1, verbose=False, **fit)


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        (data, {}),
        pytest.param(data, {"jit_compile": True}, marks=pytest.mark.very_slow),
        (pipelines, {}),
    ],
)
def test_a_source_drawn_at_some_steps_counts_at_these_alone(source, settings):
    trainer, history = rated(source, settings)
    for mine, theirs in zip(trainer.model.get_weights(), rated_by_hand(12), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)
    seen = [row.get("raw/small") is not None for row in history.rows]
    assert seen == [step % 3 == 0 for step in range(12)]


def test_rates_are_the_same_on_two_replicas(two_replicas):
    trainer, _ = rated(data, {"strategy": two_replicas})
    for mine, theirs in zip(trainer.model.get_weights(), rated_by_hand(12), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-6)


@pytest.mark.parametrize("source", [data, pipelines])
def test_a_sampled_source_is_drawn_as_often_as_said_and_resumed_exactly(tmp_path, source):
    fit = {"batch_size": BATCHES if source is data else {"boundary": 3}, "verbose": False}
    whole = make()
    history = whole.fit(
        source().sampled(unlabelled=0.25, boundary=0.5), steps=200, log_every=1, **fit
    )
    drawn = np.array([row.get("raw/small") is not None for row in history.rows])
    assert abs(drawn.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 200)
    assert np.sum(drawn[1:] != drawn[:-1]) > 10  # not in a row
    for steps in (37, 111, 200):
        parts = make(workdir=tmp_path / "run")
        parts.fit(source().sampled(unlabelled=0.25, boundary=0.5), steps=steps, **fit)
    for mine, theirs in zip(parts.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("make_data", "message"),
    [
        (lambda: data().every(labelled=2), "'labelled' is the main source, which every step"),
        (lambda: data().every(other=2), r"every\(\) names the source 'other'"),
        (lambda: data().every(unlabelled=0), r"every\(unlabelled=0\): give a whole number"),
        (lambda: data().sampled(unlabelled=1.5), r"sampled\(unlabelled=1.5\): give a prob"),
    ],
)
def test_bad_rates_are_one_clear_error(make_data, message):
    with pytest.raises(ValueError, match=message):
        make().fit(make_data(), batch_size=3, steps=2, verbose=False)


def test_rates_and_accumulated_steps_are_refused():
    optimizer = keras.optimizers.SGD(0.05, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="cannot be counted over accumulated"):
        make(optimizer=optimizer).fit(data().every(boundary=2), batch_size=3, steps=2)


def test_what_takes_one_source_says_so():
    trainer, _ = trained(steps=2)
    with pytest.raises(
        ValueError, match=r"examples\(\) takes data of one source, and this has 'lab"
    ):
        trainer.examples(data(), batch_size=8)
    with pytest.raises(ValueError, match=r"predict\(\) takes data of one source"):
        trainer.predict(data(), batch_size=8)
    values = trainer.examples((X, Y))
    assert values["mean_squared_error"].shape == (40,)
    measuring = make(helps_every=2)
    with pytest.raises(ValueError, match="validation data of the main source alone"):
        measuring.fit(data(), batch_size=BATCHES, steps=2, validation_data=data(), verbose=False)
    rows = measuring.fit(
        data(), batch_size=BATCHES, steps=2, validation_data=(X, Y), log_every=2, verbose=False
    ).rows
    assert rows[0]["helps/mean_squared_error"] < 0  # more of it lowers the validation


def test_the_hardest_examples_are_those_of_the_terms_own_source(two_replicas):
    rows = []
    for strategy in ("one_device", two_replicas):
        trainer = make(strategy=strategy)
        fit = {"batch_size": BATCHES, "shuffle": False, "steps": 1, "verbose": False}
        rows += trainer.fit(data(), hardest={"small": 0.2}, **fit).rows
    outputs = np.sort(model().predict(U[:15], verbose=0)[:, 0] ** 2)[-3:]
    np.testing.assert_allclose([row["raw/small"] for row in rows], np.mean(outputs), rtol=1e-5)


def test_a_term_that_a_step_does_not_draw_has_no_gradient_to_measure():
    trainer = make(gradient_diagnostics_every=1)
    fit = {"batch_size": BATCHES, "log_every": 1, "verbose": False}
    first, second = trainer.fit(data().every(unlabelled=2), steps=2, **fit).rows
    assert first["grad_norm/small"] > 0 and first["update_share/small"] is not None
    for tag in ("grad_norm/small", "update_share/small", "grad_cosine/mean_squared_error:small"):
        assert second[tag] is None
    assert second["grad_norm/boundary"] > 0
    shares = second["update_share/mean_squared_error"] + second["update_share/boundary"]
    assert abs(shares - 1) < 1e-6


def test_metrics_by_source_count_its_own_labels(two_replicas):
    sources, found = Sources(task_a=(X, Y), task_b=(B, YB)), []
    for strategy in ("one_device", two_replicas):
        trainer = Trainer(
            heads,
            optimizer="sgd",
            loss={"task_a": "mse", "task_b": "mse"},
            metrics={"task_a": ["mae"], "task_b": ["mse", "mae"]},
            strategy=strategy,
        )
        fit = {"batch_size": {"task_a": 40, "task_b": 3}, "shuffle": False, "verbose": False}
        row = trainer.fit(sources, steps=2, log_every=2, **fit).rows[0]
        found.append([row[f"metrics/{n}"] for n in ("task_a_mae", "task_b_mse", "task_b_mae")])
        values = trainer.evaluate(sources)
        outputs = trainer.model(B)["task_b"]
        np.testing.assert_allclose(
            values["metrics/task_b_mae"], np.mean(np.abs(outputs - YB)), rtol=1e-5
        )
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert set(key for key in trainer.evaluate((X, Y)) if key.startswith("metrics/")) == {
        "metrics/task_a_mae"
    }


@pytest.mark.very_slow
@pytest.mark.parametrize("source", [data, pipelines])
def test_whether_xla_is_faster_is_tried_on_all_sources(source):
    trainer, sizes = make(jit_compile="auto"), BATCHES if source is data else {"boundary": 3}
    history = trainer.fit(source(), batch_size=sizes, steps=4, log_every=4, verbose=False)
    assert history.rows[0]["raw/boundary"] > 0


@pytest.mark.parametrize("source", [data, pipelines])
def test_a_bad_value_is_told_with_its_source(source, monkeypatch):
    bad = U.copy()
    bad[17, 1] = np.nan
    monkeypatch.setitem(globals(), "U", bad)
    sizes = BATCHES if source is data else {"boundary": 3}
    with pytest.raises(Nonfinite, match=r"data\['unlabelled'\]: x of example .* is nan at \[1\]"):
        make().fit(source(), batch_size=sizes, shuffle=False, steps=6, verbose=False)


def test_a_forward_of_ones_own_reads_any_source():
    class Joined(Trainer):
        def forward(self, step):
            if step.source == "labelled" and "unlabelled" in step:
                both = tf.concat([step.x, step["unlabelled"].x], 0)
                outputs = self.model(both, training=step.training)
                step["unlabelled"].y_pred = outputs[tf.shape(step.x)[0] :]
                return outputs[: tf.shape(step.x)[0]]
            return super().forward(step)

    def rows(kind):
        terms = [losses.term(small, name="small", source="unlabelled", weight=0.3)]
        trainer = kind(model, loss="mse", optimizer="sgd", terms=terms)
        sources = Sources(labelled=(X, Y), unlabelled=(U,))
        fit = {"batch_size": {"labelled": 8, "unlabelled": 15}, "shuffle": False}
        return trainer.fit(sources, steps=4, log_every=4, verbose=False, **fit).rows[0]

    one_pass, two_passes = rows(Joined), rows(Trainer)
    for tag in ("total", "raw/small", "raw/mean_squared_error"):
        assert abs(one_pass[tag] - two_passes[tag]) < 1e-6


def test_one_source_with_a_name_trains_as_data_without_names():
    settings = dict(steps=6, shuffle=False, verbose=False)
    weights = []
    for given, size in ((Sources(labelled=(X, Y)), {"labelled": 8}), ((X, Y), 8)):
        trainer = Trainer(model, optimizer=keras.optimizers.SGD(0.05), loss="mse")
        trainer.fit(given, batch_size=size, **settings)
        weights.append(trainer.model.get_weights())
        # a dict of sizes fits data without names, which are the main source's
        assert trainer.evaluate((X, Y), batch_size=size) == trainer.evaluate((X, Y), batch_size=8)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)
    bad = np.where(np.arange(40)[:, None] == 7, np.nan, X)
    with pytest.raises(losses.TermwiseError, match=r"data\['labelled'\].*example 7"):
        trainer.fit(Sources(labelled=(bad, Y)), batch_size={"labelled": 8}, steps=9, verbose=False)
