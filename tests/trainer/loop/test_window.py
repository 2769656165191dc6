"""Log windows inside a call of the loop: the rows do not depend on how the steps are called."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from trainer import Trainer
from trainer.ledger.console import Console
from trainer.ledger.recorder import Recorder
from trainer.ledger.window import WindowSums
from trainer.loop.train_loop import OnNonfinite
from trainer.loop.window import LogWindow, StepLine, WindowCodec
from trainer.step.outputs import StepRecord

TIMES = ("time", "steps_per_second", "examples_per_second")


def model():
    keras.utils.set_random_seed(4)
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh", kernel_regularizer="l2", name="hidden"),
            keras.layers.Dense(1, name="last"),
        ],
        name="net",
    )


def arrays(examples=22):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(examples, 3)).astype("float32")
    return x, (x[:, :1] * x[:, 1:2]).astype("float32")


def make(**arguments):
    return Trainer(
        model(),
        **{
            "optimizer": keras.optimizers.Adam(
                keras.optimizers.schedules.ExponentialDecay(0.1, 9, 0.5)
            ),
            "loss": "mse",
            "metrics": ["mae"],
            "loss_weights": {"mean_squared_error": losses.UncertaintyWeight()},
            **arguments,
        },
    )


def rows(trainer, data, **arguments):
    batch = {} if isinstance(data, tf.data.Dataset) else {"batch_size": 8}
    history = trainer.fit(data, verbose=False, **batch, **arguments)
    return [{k: v for k, v in row.items() if k not in TIMES} for row in history.rows]


@pytest.mark.one_in(2, of="log_every")
@pytest.mark.parametrize("log_every", [3, 1, 7, 100])
@pytest.mark.parametrize("kind", ["arrays", "pipeline"])
def test_rows_are_the_same_one_window_or_many_in_a_call(log_every, kind):
    data = arrays()
    if kind == "pipeline":
        data = tf.data.Dataset.from_tensor_slices(data).batch(8)
    many = rows(make(), data, steps=20, log_every=log_every)
    one = rows(make(), data, steps=20, log_every=log_every, steps_per_loop=1)
    assert many == one
    assert [row["step"] for row in many] == [*range(log_every, 20, log_every), 20]
    assert {"metrics/mae", "learning_rate", "raw/uncertainty/mean_squared_error"} <= set(many[0])
    rates = [row["learning_rate"] for row in many]
    expected = [0.1 * 0.5 ** (row["step"] / 9) for row in many]  # of the next step
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_metrics_are_those_of_their_own_window():
    trainer = make(optimizer=keras.optimizers.SGD(0.0), loss_weights=None)
    x, y = arrays(16)
    history = trainer.fit((x, y), batch_size=8, steps=4, log_every=1, shuffle=False, verbose=False)
    errors = np.abs(trainer.predict(x) - y)
    expected = [errors[:8].mean(), errors[8:].mean()] * 2
    np.testing.assert_allclose([row["metrics/mae"] for row in history.rows], expected, rtol=1e-5)


class Slow(keras.metrics.Metric):
    """A metric of a user's own: its result is computed by Python, which no graph can hold."""

    def __init__(self, name="slow", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(1.0)

    def result(self):
        return float(np.asarray(self.total)) + 0.5


def test_a_metric_that_only_the_host_can_read_is_read_by_the_host():
    found = rows(make(metrics=[Slow()]), arrays(), steps=7, log_every=3)
    assert [row["metrics/slow"] for row in found] == [3.5, 3.5, 1.5]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("examples", [24, 22])
@pytest.mark.parametrize("shuffle", [True, False])
def test_many_compiled_steps_are_the_steps_of_the_plain_loop(examples, shuffle):
    def weights(jit_compile):
        trainer = make(metrics=None, jit_compile=jit_compile)
        rows(trainer, arrays(examples), steps=17, log_every=5, shuffle=shuffle)
        found = [*trainer.model.get_weights(), *map(np.asarray, trainer.loss_parameters.values())]
        return found, rows(trainer, arrays(examples), steps=30, log_every=4, shuffle=shuffle)

    (plain, history), (compiled, other) = weights(False), weights(True)
    for mine, theirs in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
    assert [row["step"] for row in other] == [20, 24, 28, 30]
    for mine, theirs in zip(other, history, strict=True):
        del mine["split"], theirs["split"]
        assert mine == pytest.approx(theirs, rel=2e-5, abs=1e-6)


def test_epochs_of_arrays_are_drawn_alike_by_the_loop_and_by_position():
    seen = []

    class Spy(Trainer):
        def train_step(self, batch):
            tf.py_function(lambda t: seen.append(t.numpy().ravel()), [batch], [])
            return super().train_step(batch)

    x = np.arange(10, dtype="float32")[:, None]
    net = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    trainer = Spy(net, optimizer="sgd", loss=lambda t, p: tf.square(p))
    source = trainer._open(x, 4, shuffle=True)
    trainer.fit(x, steps=7, batch_size=4, steps_per_loop=3, verbose=False)
    for position, batch in enumerate(seen):
        np.testing.assert_array_equal(
            batch, source.batch_at(tf.constant(position, tf.int64)).numpy().ravel()
        )


def test_other_data_of_the_same_kind_costs_no_trace_of_the_loop():
    trainer = make()
    for seed in range(3):
        x, y = arrays()
        rows(trainer, (x + seed, y), steps=4 * (seed + 1))
    for _ in range(2):
        data = tf.data.Dataset.from_tensor_slices(arrays()).batch(8)
        rows(trainer, data, steps=int(trainer.step) + 4)
    assert len(trainer._run.loops) == 2


def test_without_a_check_in_each_step_the_window_stays_as_the_bad_step_left_it():
    x, y = arrays(40)
    y[19] = np.inf  # in the third batch
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    plain = make(loss_weights=None)
    with pytest.raises(FloatingPointError) as expected:
        rows(plain, data, steps=5)
    on_gpu = make(loss_weights=None)
    on_gpu._run.loops.on_nonfinite = OnNonfinite.FREEZE
    with pytest.raises(FloatingPointError) as found:
        rows(on_gpu, data, steps=5)
    assert "at step 3" in str(found.value)
    assert str(found.value).splitlines()[0] == str(expected.value).splitlines()[0]


def record(raw, weighted, norm, absent=None):
    numbers = [tf.constant(value) for value in (raw, [2.0, 3.0], weighted, 4.0, norm)]
    return StepRecord(*numbers, None if absent is None else tf.constant(absent))


def sums_of(window, by_examples=False):
    sums = window.read(by_examples)
    lists = (part.tolist() for part in (sums.raw, sums.weighted, sums.weight, sums.absent))
    return [*lists, sums.examples, sums.grad_norm, sums.steps, sums.skipped, sums.loss]


@pytest.mark.parametrize("by_examples", [False, True])
def test_a_window_adds_up_its_steps(by_examples):
    records = [
        record([1.0, 0.0], [2.0, 0.0], 0.5, [0.0, 1.0]),
        record([3.0, 5.0], [6.0, 15.0], 2.0),
    ]
    window = LogWindow.empty(2)
    for each in records:
        window = window.add(StepLine.of(each, by_examples=by_examples))
    by = 4 if by_examples else 1  # each step has four examples
    raw, weighted, absent = [4.0 * by, 5.0 * by], [8.0 * by, 15.0 * by], [0.0, 1.0 * by]
    expected = [raw, weighted, [2, 3], absent, 8, 2.5 * by, 2, 0, 4 * 2.0 + 4 * 21.0]
    assert sums_of(window, by_examples) == expected


@pytest.mark.parametrize("last, norm", [(np.nan, 1.0), (6.0, np.inf)])
def test_a_skipped_step_leaves_only_its_count(last, norm):
    bad = record([1.0, 1.0], [2.0, last], norm)
    good = StepLine.of(record([1.0, 2.0], [2.0, 6.0], 0.5), skipping=True)
    before = LogWindow.empty(2).add(good)
    line = StepLine.of(bad._replace(weight=tf.constant([9.0, 9.0])), skipping=True)
    after = sums_of(before.add(line))
    expected = sums_of(before)
    expected[-2] += 1
    assert after == expected


def test_a_row_comes_back_from_the_vector_it_was_packed_in():
    window = LogWindow(
        tf.constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 1.0, 0.0, 1.0, 8.0], tf.float64),
        tf.ones([2]),
    )
    values = {"learning_rate": tf.constant(0.25), "metrics/mae": tf.constant(3.0)}
    row = WindowCodec(2, 3, tuple(values))
    ended = row.read(row.pack(window, values, tf.constant([9.0, 8.0, 7.0], tf.float64)).numpy())
    numbers = ended.sums._replace(raw=0, weighted=0, weight=0, absent=0)
    assert numbers == WindowSums(0, 0, 0, 5.0, 6.0, 7, 1, 0, 8.0)
    assert ended.sums.absent.tolist() == [0.0, 1.0]
    assert ended.sums.raw.tolist() == [1.0, 2.0] and ended.sums.weighted.tolist() == [3.0, 4.0]
    assert ended.sums.taken == 8
    assert ended.values == {"learning_rate": 0.25, "metrics/mae": 3.0}
    assert ended.gradients.tolist() == [9.0, 8.0, 7.0]


class Full:
    """Writers whose disk is full."""

    def write(self, row, total_steps):
        raise OSError("No space left on device")


def test_what_the_writing_thread_raises_reaches_the_training():
    row = WindowCodec(1, 0, ("learning_rate",))
    packed = row.pack(LogWindow.empty(1), {"learning_rate": tf.constant(0.1)}).numpy()
    recorder = Recorder(Full(), ["loss"], None, 10)
    recorder.add(row, packed[None], [1], [0.1])
    with pytest.raises(OSError, match="No space"):
        recorder.settle()
    recorder.close()


def test_the_time_of_a_window_is_its_own():
    history = make().fit(arrays(), batch_size=8, steps=60, log_every=1, verbose=False)
    times = [row["time"] for row in history.rows]
    assert times == sorted(times) and len(set(times)) == 60
    for row in history.rows[2:]:
        assert 0 < row["steps_per_second"] < 1e6
        assert row["examples_per_second"] == pytest.approx(
            row["steps_per_second"] * (6 if row["step"] % 3 == 0 else 8)
        )


def test_the_console_leaves_out_rows_that_come_too_fast_but_not_the_last(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("trainer.ledger.console.time.monotonic", lambda: now[0])
    console = Console()
    for step in range(1, 101):
        console.progress({"step": step, "total": 1.0, "terms/a": 1.0}, 100)
    steps = [int(line.split()[1].split("/")[0]) for line in capsys.readouterr().out.splitlines()]
    assert steps == [*range(1, 21), 100]
    now[0] += 0.25  # at ten lines a second: two more
    for step in range(1, 10):
        console.progress({"step": step, "total": 1.0, "terms/a": 1.0}, 100)
    assert len(capsys.readouterr().out.splitlines()) == 1  # one was lent to the last
