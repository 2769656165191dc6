"""Where the time of profiled steps went, against time that was spent on purpose."""

import contextlib
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from trainer import Trainer
from trainer.debugging.profile import Profile
from trainer.debugging.profile_shares import (
    KINDS,
    WINDOW,
    Shares,
    attribute,
    covered_length,
    newest,
    read_shares,
    shares_line,
)
from trainer.distributed.hosts import Hosts
from trainer.persistence.workdir import Workdir

MS = 1_000_000_000  # picoseconds


def model(units=4, inputs=4):
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(units),
        ]
    )


def batches(inputs=4, size=8, units=4):
    x = np.ones([size, inputs], "float32")
    return tf.data.Dataset.from_tensors((x, np.ones([size, units], "float32"))).repeat()


class Profiled(keras.callbacks.Callback):
    """Records as the loop of fit does, around its calls, and works between them."""

    def __init__(self, profile, between):
        super().__init__()
        self.profile, self.between = profile, between
        self.lines = []

    def on_train_batch_begin(self, batch, logs=None):
        self.lines.append(self.profile.before(batch))

    def on_train_batch_end(self, batch, logs=None):
        self.between()
        self.lines.append(self.profile.after(batch + 1))


def profiled(data, workdir, build=model, steps=5, between=lambda: None, **arguments):
    """The shares of some steps of fit, which has run before."""
    trainer = Trainer(build, loss="mse", optimizer="sgd", **arguments)
    profile = Profile((steps, 2 * steps), Workdir(workdir), 100)
    around = Profiled(profile, between)
    trainer.fit(data, steps=3 * steps, steps_per_loop=steps, callbacks=[around], verbose=False)
    (line,) = filter(None, around.lines)
    assert line.startswith(f"profile of steps {steps + 1}-{2 * steps}: compute ")
    return read_shares(newest(workdir / "tb"))


@pytest.fixture(autouse=True)
def no_profiler():
    """Leaves no profiler running, whatever a test did."""
    yield
    with contextlib.suppress(tf.errors.UnavailableError):
        tf.profiler.experimental.stop(save=False)


# ground truth: what is spent on purpose shows


def test_the_wait_for_a_slow_pipeline_is_input(workdir):
    def slow(x, y):
        def sleep(x):
            time.sleep(0.02)
            return x

        slept = tf.py_function(sleep, [x], tf.float32)
        slept.set_shape(x.shape)
        return slept, y

    shares = profiled(batches().map(slow), workdir, steps=10)
    # one batch is prepared while the step before it runs, and one more may lie ready; however
    # long the rest took, so much was waited for the others
    assert shares.input > 4 * 0.02


def seconds_of_a_product():
    """What one product of those below takes, at its best; a step has three."""
    x, kernel = tf.ones([256, 1024]), tf.ones([1024, 1024])
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        tf.matmul(x, kernel).numpy()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_large_matrix_products_are_compute(jit_compile, workdir):
    data = batches(inputs=1024, size=256, units=1024)
    shares = profiled(data, workdir, lambda: model(1024, 1024), jit_compile=jit_compile)
    assert shares.compute > 5 * seconds_of_a_product()
    assert shares.reduction == 0


def test_time_between_the_calls_of_the_loop_is_the_hosts(workdir):
    shares = profiled(batches(), workdir, between=lambda: time.sleep(0.3))
    assert shares.host > 0.3


def test_sums_over_replicas_are_reduction(workdir, two_replicas, monkeypatch):
    # in one memory the sums are ordinary additions: as devices that share none
    monkeypatch.setattr("trainer.distributed.reduce.shares_memory", lambda strategy: False)
    assert profiled(batches(), workdir, strategy=two_replicas).reduction > 0


def test_one_replica_reduces_nothing(workdir):
    assert profiled(batches(), workdir).reduction == 0


# the arithmetic, by hand


def space_of(*lines, window=(0, 100)):
    """An XSpace; a line is (plane, line, [(event, start, end in ms, names of stats), ...])."""
    space = xplane_pb2.XSpace()
    everything = [*lines, ("/host:CPU", "python", [(WINDOW, *window)])]
    for number, (plane_name, line_name, events) in enumerate(everything):
        plane = space.planes.add(name=plane_name)
        line = plane.lines.add(id=number, name=line_name, timestamp_ns=7)
        for place, (name, start, end, *stats) in enumerate(events, 1):
            plane.event_metadata[place].name = name
            event = line.events.add(metadata_id=place, offset_ps=start * MS)
            event.duration_ps = (end - start) * MS
            for stat in stats:
                plane.stat_metadata[1].name = stat
                event.stats.add(metadata_id=1, str_value="x")
    return space


def milliseconds(space):
    return dict(zip(KINDS, (round(1e3 * part, 6) for part in attribute(space)), strict=True))


def test_every_moment_counts_once_for_the_first_kind_at_work():
    space = space_of(
        ("/host:CPU", "tf_Compute/1", [("step/a:MatMul", 10, 30), ("step/b:_MklMatMul", 20, 40)]),
        ("/host:CPU", "tf_Compute/2", [("step/c:Relu", 35, 50), ("ExecutorState::Process", 0, 99)]),
        ("/host:CPU", "collective_ops/3", [("step/s:CollectiveReduceV2", 45, 60)]),
        ("/host:CPU", "tf_data_iterator_get_next/4", [("IteratorGetNextOp::DoCompute", 0, 65)]),
        ("/host:CPU", "tf_data_private_threadpool/5", [("EagerPyFunc:EagerPyFunc", 0, 100)]),
    )
    # compute 10-50; reduction 50-60; input 0-10 and 60-65; the rest 65-100
    assert milliseconds(space) == {"compute": 40, "reduction": 10, "input": 15, "host": 35}


def test_only_what_lies_within_the_profiled_steps_counts():
    space = space_of(
        ("/host:CPU", "tf_Compute/1", [("a:Mul", 0, 30), ("b:Mul", 90, 120), ("c:Mul", 0, 5)]),
        window=(20, 100),
    )
    assert milliseconds(space) == {"compute": 20, "reduction": 0, "input": 0, "host": 60}


def test_programs_of_xla_on_the_cpu_are_compute():
    space = space_of(
        ("/host:CPU", "tf_numa_-1_Eigen/1", [("dot.3", 0, 10, "hlo_op"), ("ParallelFor", 0, 50)]),
        ("/host:CPU", "tf_Compute/1", [("CpuExecutable::ExecuteAsyncOnStream", 5, 20)]),
        ("/host:CPU", "tf_Compute/2", [("all-reduce.1", 20, 25, "hlo_op")]),
    )
    assert milliseconds(space) == {"compute": 20, "reduction": 5, "input": 0, "host": 75}


def test_on_a_gpu_its_kernels_are_compute_and_starting_them_is_the_hosts():
    space = space_of(
        ("/host:CPU", "tf_Compute/1", [("a:MatMul", 0, 60)]),
        ("/device:GPU:0", "Stream #13(Compute)", [("sgemm_128x64", 10, 30)]),
        ("/device:GPU:1", "Stream #14(Nccl)", [("ncclDevKernel_AllReduce", 25, 40)]),
        ("/device:GPU:0", "Stream #15(MemcpyH2D)", [("MemcpyH2D", 38, 45), ("MemcpyD2H", 45, 50)]),
        ("/device:GPU:0", "XLA Modules", [("jit_step", 0, 100)]),
    )
    assert milliseconds(space) == {"compute": 20, "reduction": 10, "input": 5, "host": 65}


def test_a_queue_of_accumulated_batches_is_input():
    space = space_of(("/host:CPU", "tf_Compute/1", [("dequeue:QueueDequeueV2", 10, 30)]))
    assert milliseconds(space)["input"] == 20


@given(
    st.lists(st.tuples(st.integers(-5, 60), st.integers(0, 20)), max_size=12),
    st.tuples(st.integers(0, 20), st.integers(20, 50)),
)
@settings(deadline=None, max_examples=60)
def test_overlapping_intervals_cover_each_moment_once(lengths, window):
    intervals = [(start, start + length) for start, length in lengths]
    moments = {t for start, end in intervals for t in range(start, end)}
    assert covered_length(intervals, window) == len(moments & set(range(*window)))


@given(st.tuples(*[st.integers(0, 1000)] * 4).filter(any), st.integers(1, 50))
@settings(deadline=None, max_examples=60)
def test_percents_add_up_to_a_hundred(parts, steps):
    told = shares_line(Shares(*parts), steps)
    assert sum(int(word) for word in told.split(" of ")[0].split() if word.isdigit()) == 100


def test_a_profile_of_someone_else_is_told_apart():
    with pytest.raises(ValueError, match="no event 'termwise profile'"):
        attribute(xplane_pb2.XSpace())


def test_half_a_file_is_told_apart(tmp_path):
    file = tmp_path / "half.xplane.pb"
    file.write_bytes(space_of().SerializeToString()[:-1])
    with pytest.raises(ValueError, match="is no whole profile"):
        read_shares(file)


# when it begins and ends


def test_a_call_of_the_loop_ends_where_the_profile_begins_and_ends(workdir):
    profile = Profile((10, 20), Workdir(workdir), 100)
    stops = [profile.next_stop(step, 100) for step in (0, 9, 10, 15, 20, 99)]
    assert stops == [10, 10, 20, 20, 100, 100]
    assert profile.next_stop(0, 7) == 7
    assert Profile(None, None, 100).next_stop(0, 100) == 100


def test_it_is_written_where_tensorboard_looks_and_the_line_says_so(workdir):
    profile = Profile((1, 3), Workdir(workdir), 3)
    told = [profile.after(0), profile.before(0), profile.after(1), profile.before(1)]
    tf.matmul(tf.ones([64, 64]), tf.ones([64, 64]))
    told += [profile.after(2), profile.before(2)]
    line = profile.after(3)
    assert told == [None] * 6
    assert line.startswith("profile of steps 2-3: compute ")
    assert line.endswith(f"| tensorboard --logdir {workdir}/tb")
    (file,) = (workdir / "tb" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert newest(workdir / "tb") == file
    assert [profile.before(3), profile.after(4), profile.close()] == [None] * 3


def test_a_fit_that_ends_early_leaves_what_was_recorded(workdir):
    profile = Profile((0, 20), Workdir(workdir), 100)
    profile.before(0)
    profile.after(1)
    assert profile.close().startswith("profile of steps 1: ")
    assert newest(workdir / "tb").exists()


def test_a_fit_that_ends_within_the_first_call_leaves_nothing(workdir):
    profile = Profile((5, 20), Workdir(workdir), 100)
    profile.before(5)
    assert "none of these steps ended" in profile.close()
    assert not list(workdir.rglob("*.pb"))
    tf.profiler.experimental.start(str(workdir))  # the recorder is free again
    tf.profiler.experimental.stop(save=False)


def test_a_run_that_stands_behind_the_profile_says_that_there_is_none(workdir):
    profile = Profile((5, 20), Workdir(workdir), 100)
    assert profile.before(7) == (
        "profile_steps=5,20: nothing is recorded, the run is at step 7 already"
    )
    assert [profile.before(7), profile.after(20), profile.close()] == [None] * 3


def test_a_profile_that_already_runs_does_not_stop_training(tmp_path, workdir):
    tf.profiler.experimental.start(str(tmp_path / "other"))
    try:
        profile = Profile((0, 20), Workdir(workdir), 100)
        assert "nothing is recorded: Another profiler" in profile.before(0)
    finally:
        tf.profiler.experimental.stop(save=False)
    assert profile.after(20) is None


def test_a_disk_that_refuses_does_not_stop_training(workdir):
    workdir.mkdir()
    (workdir / "tb").write_text("a file where the folder should be")
    profile = Profile((0, 1), Workdir(workdir), 100)
    profile.before(0)
    assert "profile_steps=0,1: could not be written or read: " in profile.after(1)


def test_only_the_chief_records_but_all_hosts_cut_their_calls(workdir):
    profile = Profile((1, 3), Workdir(workdir), 10, chief=False)
    assert profile.next_stop(1, 10) == 3
    assert [profile.before(1), profile.after(3), profile.close()] == [None] * 3
    assert not workdir.exists()
    assert Hosts(tf.distribute.get_strategy()).chief


@pytest.mark.parametrize(
    "steps", [10, (10,), (1, 2, 3), (20, 10), (10, 10), (-1, 5), (1.0, 5), (False, 5), "10,20"]
)
def test_steps_that_are_no_range_are_refused(steps, workdir):
    with pytest.raises(ValueError, match=r"two whole numbers \(first, last\)"):
        Profile(steps, Workdir(workdir), 100)


def test_steps_behind_the_fit_are_refused(workdir):
    with pytest.raises(ValueError, match=r"\(10, 20\) ends after the last step, 15\."):
        Profile((10, 20), Workdir(workdir), 15)


def test_a_profile_needs_a_workdir():
    with pytest.raises(ValueError, match="needs a workdir"):
        Profile((10, 20), None, 100)


# under Trainer.fit


def fitted(workdir, **arguments):
    trainer = Trainer(model, loss="mse", optimizer="sgd", workdir=workdir)
    trainer.fit(batches(), log_every=7, **arguments)
    return trainer


def test_fit_records_exactly_the_steps_asked_for(workdir, capsys):
    fitted(workdir, steps=30, profile_steps=(10, 20))
    lines = [one for one in capsys.readouterr().out.splitlines() if "profile" in one]
    assert len(lines) == 1
    assert lines[0].startswith("profile of steps 11-20: compute ")
    space = xplane_pb2.XSpace.FromString(newest(workdir / "tb").read_bytes())
    # the counter of steps and the update's matrix product, once per step
    names = [
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for one in plane.lines
        for event in one.events
    ]
    read = [name for name in names if name == "IteratorGetNextOp::DoCompute"]
    assert len(read) == 10


def test_fit_tells_why_there_is_no_profile_when_it_resumes_behind_it(workdir, capsys):
    fitted(workdir, steps=15, verbose=False)
    fitted(workdir, steps=30, profile_steps=(10, 20))
    assert "nothing is recorded, the run is at step 15 already" in capsys.readouterr().out


def test_fit_that_a_callback_stops_leaves_what_was_recorded(workdir, capsys):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch + 1 >= 14

    arguments = dict(steps=30, steps_per_loop=2, profile_steps=(10, 20), callbacks=[Stop()])
    fitted(workdir, **arguments)
    assert "profile of steps 11-14: " in capsys.readouterr().out


def test_fit_refuses_a_profile_without_workdir_before_anything_is_built():
    trainer = Trainer(lambda: keras.Sequential([keras.layers.Dense(4)]), loss="mse")
    with pytest.raises(ValueError, match="needs a workdir"):
        trainer.fit(batches(), steps=30, profile_steps=(10, 20))
    assert not trainer.model.built
