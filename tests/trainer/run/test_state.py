"""Where a run stands, alone: what its checkpoints hold, in which order it is restored, where its
data began, and the log window it goes on with. No step is traced: what a trace finds is given."""

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses.objective.layout import Layout
from trainer.distributed.hosts import Hosts
from trainer.loop.window import LogWindow
from trainer.model.variables import read
from trainer.persistence.workdir import Workdir
from trainer.run.host_state import HostState
from trainer.run.state import RunState, make_counter
from trainer.second_order.phase_states import PhaseStates
from trainer.step.trainable import TrainableVariables

LAYOUT = Layout(("a", "b"), ((), ()), (None, None), (False, False))
ONE = tf.distribute.get_strategy()


class Standing:
    """A run after its first trace: one parameter, a layer that a subclass owns, a counter that
    the traced step writes, and a balancer's variable."""

    def __init__(self, make_program, workdir, strategy=ONE, **arguments):
        with strategy.scope():
            self.parameter = losses.Parameter("temperature", 1.5)
            self.owned = keras.Variable([7.0], name="teacher", trainable=False)
            self.counted = tf.Variable(3.0, trainable=False, name="counted")
            self.balancer = tf.Variable([1.0, 1.0], trainable=False)
        program = self.program = make_program(strategy, metrics=["mae"], **arguments)
        own = {v.path: v for v in program.model.trainable_variables}
        parameters = {"temperature": self.parameter}
        variables = {**own, **parameters}
        trainables = TrainableVariables(variables, parameters, dict.fromkeys(variables, "model"))
        program.discovery.settle(LAYOUT, trainables, list(variables))
        program.optimizers.build(trainables.owners, trainables.variables, trainables.parameters)
        read = [variable.value for variable in variables.values()]
        self.programs: Any = SimpleNamespace(
            program=program,
            first_settings=(),
            follow_switches=lambda: None,
            balancing_variables=[self.balancer],
            balanced=SimpleNamespace(variables=[self.balancer]),
            phase_states=PhaseStates(),
            variables=[self.counted, program.counter, *read],
        )
        hosts = Hosts(strategy)
        folder = None if workdir is None else Workdir(workdir)
        # twice, as two terms that share a network own it
        owned = [self.owned, self.parameter, self.owned]
        self.state = RunState(strategy, hosts, folder, program.counter, lambda: owned)

    def open(self, keep_last=None):
        return self.state.open_checkpoints(self.programs, keep_last)

    def parts(self):
        return self.state._train_state(self.programs).parts()


@pytest.fixture
def make_run(make_program):
    """A function that makes a `Standing`."""

    def make_run(workdir=None, strategy=ONE, **arguments):
        return Standing(make_program, workdir, strategy, **arguments)

    return make_run


def window_of(*sums):
    return LogWindow(tf.constant(sums, tf.float64), tf.constant([2.0, 3.0]))


# ---- what a checkpoint holds ----


def test_a_checkpoint_holds_all_on_which_the_next_step_depends(make_run):
    run = make_run(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    parts = run.parts()
    first = ["model", "optimizers", "terms", "random", "balancer", "metrics", "window"]
    assert list(parts) == [*first, "window_more", "step", "data_start", "held", "host", "phases"]
    assert [v.path for v in parts["model"]] == ["line/kernel", "line/bias"]
    slots = [v.path.split("/")[-1] for v in parts["optimizers"]]
    assert slots[:2] == ["iteration", "learning_rate"] and len(slots) == 2 + 3  # and three momenta
    assert parts["terms"] == {"temperature": run.parameter, "1/teacher": run.owned}
    assert parts["balancer"] == [run.balancer]
    assert [v.shape.as_list() for v in parts["metrics"]] == [[None], [None]]  # by replica
    assert [tuple(v.shape) for v in parts["window"]] == [(2 * 2 + 4,), (2,)]
    assert [tuple(v.shape) for v in parts["window_more"]] == [(2 + 1,)]
    assert parts["step"] == [run.program.counter]
    assert parts["held"] == {"step/counted": run.counted}  # what only the trace knows of
    assert parts["random"] == []


def test_the_variables_of_some_parts_are_listed_in_their_order(make_run):
    run = make_run()
    state = run.state._train_state(run.programs)
    assert state.variables("step", "terms") == [run.program.counter, run.parameter, run.owned]
    assert len(state.variables()) == sum(len(part) for part in state.parts().values())


def test_what_the_step_reads_beside_is_listed_in_the_order_of_its_first_use(make_run):
    run = make_run()
    more = [tf.Variable(0.0, trainable=False, name=name) for name in ("zeta", "alpha", "alpha_12")]
    run.programs.variables += more
    names = ["step/counted", "step/zeta", "step/alpha", "step/alpha_1"]
    assert run.parts()["held"] == dict(zip(names, [run.counted, *more], strict=True))


def test_without_a_workdir_there_are_no_checkpoints(make_run):
    run = make_run()
    assert run.open() is None
    assert run.state.restore(run.programs, None) is False
    assert run.state.restorable is False


# ---- saving and restoring ----


def test_everything_comes_back_as_it_was_saved(make_run, workdir):
    run = make_run(workdir)
    checkpoints = run.open()
    run.program.counter.assign(40)
    run.program.model.set_weights([np.array([[5.0], [6.0]]), np.array([7.0])])
    run.parameter.assign(2.5)
    run.owned.assign([8.0])
    run.counted.assign(9.0)
    run.balancer.assign([0.25, 0.75])
    checkpoints.save(40)

    again = make_run(workdir)
    assert again.state.restorable
    assert again.state.restore(again.programs, again.open()) is True
    assert again.state.step == 40
    kernel, bias = again.program.model.get_weights()
    assert kernel.tolist() == [[5], [6]] and bias.tolist() == [7]
    assert float(again.parameter) == 2.5 and float(again.owned[0]) == 8
    assert float(again.counted) == 9 and again.balancer.numpy().tolist() == [0.25, 0.75]


def test_a_run_is_restored_once(make_run, workdir):
    run = make_run(workdir)
    checkpoints = run.open()
    checkpoints.save(0)
    assert run.state.restore(run.programs, checkpoints) is True
    run.program.counter.assign(5)
    assert run.state.restore(run.programs, checkpoints) is False
    assert run.state.step == 5 and not run.state.restorable
    assert run.state.restore_newest(run.programs, checkpoints) is True  # asked for once more
    assert run.state.step == 0


def test_an_empty_workdir_restores_nothing(make_run, workdir):
    run = make_run(workdir)
    assert not run.state.restorable
    assert run.state.restore(run.programs, run.open()) is False
    assert run.state.step == 0


def test_a_warm_start_takes_weights_and_parameters_and_no_more(make_run, tmp_path):
    run = make_run(tmp_path / "first")
    run.program.counter.assign(40)
    run.parameter.assign(2.5)
    run.program.model.set_weights([np.array([[5.0], [6.0]]), np.array([7.0])])
    run.open().save(40)

    for takes_parameters, value in ((True, 2.5), (False, 1.5)):
        other = make_run(tmp_path / f"other_{value}")
        other.open()
        warm = other.state.initialize(other.programs, tmp_path / "first", takes_parameters)
        assert "ckpt-40" in str(warm.path)
        assert other.program.model.get_weights()[1].tolist() == [7]
        assert float(other.parameter) == value and other.state.step == 0


# ---- the log window ----


def test_a_run_begins_with_an_empty_window_and_empty_metrics(make_run):
    run = make_run()
    run.program.metrics.update(tf.zeros([2, 1]), tf.ones([2, 1]))
    window = run.state.window(run.programs)
    assert window.sums.numpy().tolist() == [0] * 11 and window.weight.numpy().tolist() == [0, 0]
    assert [float(v) for v in run.program.metrics.variables] == [0, 0]


def test_a_resumed_run_goes_on_with_its_window_and_metrics_once(make_run, workdir):
    run = make_run(workdir)
    checkpoints = run.open()
    run.program.metrics.update(tf.zeros([2, 1]), tf.constant([[3.0], [4.0]]))
    run.state.keep_for_checkpoint(window_of(1, 2, 3, 4, 5, 6, 7, 0, 1, 0, 9), run.program.metrics)
    checkpoints.save(7)

    again = make_run(workdir)
    again.state.restore(again.programs, again.open())
    window = again.state.window(again.programs)
    assert window.sums.numpy().tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 1, 0, 9]
    assert window.weight.numpy().tolist() == [2, 3]
    assert [float(v) for v in again.program.metrics.variables] == [7, 2]  # total and count
    assert again.state.window(again.programs).sums.numpy().tolist() == [0] * 11


def test_each_replica_goes_on_with_its_own_part_of_a_metric(make_run, workdir, two_replicas):
    def parts(run):
        total = run.program.metrics.variables[0].value
        return [float(part) for part in two_replicas.experimental_local_results(total)]

    run = make_run(workdir, two_replicas)
    checkpoints = run.open()
    total = run.program.metrics.variables[0].value
    for part, value in zip(two_replicas.experimental_local_results(total), [3.0, 5.0], strict=True):
        part.assign(value)
    run.state.keep_for_checkpoint(window_of(*[0] * 11), run.program.metrics)
    checkpoints.save(1)

    again = make_run(workdir, two_replicas)
    assert [read(v).shape for v in again.parts()["metrics"]] == [(2,), (2,)]
    again.state.restore(again.programs, again.open())
    assert parts(again) == [3, 5]


@pytest.mark.parametrize("before, after", [([3.0, 5.0], [8.0]), ([3.0], [3.0, 0.0])])
def test_on_another_number_of_replicas_a_metric_goes_on_with_the_same_sum(
    make_run, workdir, two_replicas, before, after
):
    def totals(run, strategy):
        total = run.program.metrics.variables[0].value
        return strategy.experimental_local_results(total)

    strategies = {1: ONE, 2: two_replicas}
    first, second = (strategies[len(parts)] for parts in (before, after))
    run = make_run(workdir, first)
    checkpoints = run.open()
    for part, value in zip(totals(run, first), before, strict=True):
        part.assign(value)
    run.state.keep_for_checkpoint(window_of(*[0] * 11), run.program.metrics)
    checkpoints.save(1)

    again = make_run(workdir, second)
    assert again.state.restore(again.programs, again.open())
    assert [float(part) for part in totals(again, second)] == after


# ---- where the data began ----


def test_a_resumed_run_knows_where_its_data_began_and_what_the_host_knew(make_run, workdir):
    run = make_run(workdir)
    run.program.counter.assign(25)
    run.state.data.began.assign(10)
    weights = [np.arange(3, dtype="float32")]
    callback = {"kind": "keras.Stop", "settings": {"patience": 2}, "state": {"best": weights}}
    run.state.host = HostState(steps=40, ended=False, epoch_ended=20, callbacks=(callback,))
    checkpoints = run.open()
    run.state.keep_for_checkpoint(window_of(*[0] * 11), run.program.metrics)
    checkpoints.save(25)

    again = make_run(workdir)
    again.state.restore(again.programs, again.open())
    assert again.state.data.start == 10
    host = again.state.host
    assert (host.steps, host.ended, host.epoch_ended) == (40, False, 20)
    assert host.callbacks[0]["settings"] == {"patience": 2}
    np.testing.assert_array_equal(host.callbacks[0]["state"]["best"][0], weights[0])


def test_data_that_are_left_out_move_the_beginning_back(make_run):
    """Restored to step 20 after the batch at position 23 failed: the next one is at 24."""
    run = make_run()
    run.program.counter.assign(20)
    assert run.state.leave_out(24) == 20 - 24
    assert run.state.data.start == -4  # step 20 reads position 24


# ---- draws ----


@pytest.fixture
def make_dropped(make_line):
    """A function that makes a model with one seed, 3."""

    def make_dropped():
        inputs = keras.Input((2,))
        dropped = keras.layers.Dropout(0.5, seed=3)(inputs)
        return keras.Model(inputs, make_line()(dropped), name="net")

    return make_dropped


def seeds_of(run, strategy):
    """The seed's state on each replica."""
    (seed,) = [v for v in run.program.model.variables if "seed" in v.path]
    return [part.numpy().tolist() for part in strategy.experimental_local_results(seed.value)]


APART = 0x9E3779B9  # of the second replica from the first, modulo 2^31


def test_each_replica_draws_from_a_seed_of_its_own(make_run, make_dropped, two_replicas):
    run = make_run(strategy=two_replicas, model=make_dropped)
    run.program.randomness.prepare()
    run.state.spread_seeds(run.programs)
    assert seeds_of(run, two_replicas) == [[3, 0], [(3 + APART) % 2**31, 0]]
    assert len(run.parts()["random"]) == 1  # of draws without a seed


def test_the_other_replicas_seeds_follow_from_the_first_ones_after_a_restore(
    make_run, make_dropped, two_replicas, workdir
):
    run = make_run(workdir, two_replicas, model=make_dropped)
    checkpoints = run.open()
    (seed,) = [v for v in run.program.model.variables if "seed" in v.path]
    seed.assign([11, 5])
    checkpoints.save(1)

    again = make_run(workdir, two_replicas, model=make_dropped)
    again.state.restore(again.programs, again.open())
    assert seeds_of(again, two_replicas) == [[11, 5], [(11 + APART) % 2**31, 5]]


def test_the_counter_is_one_number_on_all_replicas(two_replicas):
    counter = make_counter(two_replicas)
    counter.assign_add(1)
    assert int(read(counter)) == 1 and counter.dtype == tf.int64 and not counter.trainable
