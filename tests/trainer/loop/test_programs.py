"""The traced steps of a run: how often a step is traced, and what the first trace finds out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import balancing
from losses.objective.layout import Layout
from trainer.balancing.weightings import JacobianWeighting
from trainer.data.open import open_data
from trainer.ledger.window import WindowSums
from trainer.loop.programs import Programs
from trainer.loop.traced_step import Asked
from trainer.loop.train_step import apply_gradients, compute_gradients, current_context
from trainer.step.program import Discovery
from trainer.step.trainable import TrainableVariables


def train_step(batch):
    """What `Trainer.train_step` does."""
    gradients, record = compute_gradients(current_context(), batch)
    apply_gradients(current_context(), gradients, record)
    return record


@pytest.fixture
def make_programs(make_program):
    """A function that makes the programs of a run; arguments of `Programs`, then of the program."""

    def make_programs(balancer=None, diagnostics_every=None, noted=lambda programs: None, **fields):
        return Programs(make_program(**fields), train_step, balancer, diagnostics_every, noted)

    return make_programs


def arrays(examples=4, labels=True, batch_size=4):
    x = np.ones([examples, 2], "float32")
    y = np.ones([examples, 1], "float32")
    data = (x, y) if labels else x
    return open_data(data, batch_size=batch_size, static=True)


# ---- how often a step is traced ----


def test_the_first_step_takes_one_trace_of_the_forward_and_backward_pass(make_programs):
    programs = make_programs()
    assert not programs.prepared and programs.traces == 0
    step = programs.step(arrays(), False, Asked())
    assert programs.prepared and programs.traces == 1
    assert programs.steps == [step]


def test_data_of_the_same_structure_takes_the_step_that_is_there(make_programs):
    programs = make_programs()
    step = programs.step(arrays(), False, Asked())
    assert programs.step(arrays(8), False, Asked()) is step and programs.traces == 1


@pytest.mark.parametrize(
    "source, xla, class_weight",
    [
        (lambda: arrays(3, batch_size=3), False, {}),
        (lambda: arrays(), True, {}),
        (lambda: arrays(), False, {0: 2.0}),
    ],
    ids=["another structure", "XLA", "class weights"],
)
def test_each_structure_way_of_compiling_and_class_weights_is_traced_once(
    source, xla, class_weight, make_programs
):
    programs = make_programs()
    first = programs.step(arrays(), False, Asked())
    for _ in range(2):
        second = programs.step(source(), xla, Asked(class_weight))
    assert second is not first and len(programs.steps) == 2
    assert programs.step(arrays(), False, Asked()) is first
    assert second.program.placement.xla is xla and second.program.class_weight == class_weight


def test_class_weights_in_another_order_are_the_same(make_programs):
    programs = make_programs()
    step = programs.step(arrays(), False, Asked({0: 2.0, 1: 3.0}))
    assert programs.step(arrays(), False, Asked({1: 3.0, 0: 2.0})) is step


# ---- what a traced step does ----


def test_a_traced_step_moves_the_weights_by_the_gradient(make_programs, batch):
    programs = make_programs(optimizer=keras.optimizers.SGD(0.1))
    step = programs.step(arrays(), False, Asked())
    line = step.function(*batch)
    sums = WindowSums.of(line.numbers.numpy(), line.weight.numpy())
    np.testing.assert_allclose(sums.raw, [3.75, 2])
    np.testing.assert_allclose(sums.weighted, [7.5, 6])
    assert (sums.examples, sums.steps) == (4, 1) and sums.loss == pytest.approx(4 * 13.5)
    # the gradient (9, 2.5) and 8
    np.testing.assert_allclose(sums.grad_norm, np.sqrt(9**2 + 2.5**2 + 8**2), rtol=1e-6)
    kernel, bias = programs.program.model.get_weights()
    np.testing.assert_allclose(kernel, [[2 - 0.9], [-1 - 0.25]], rtol=1e-6)
    np.testing.assert_allclose(bias, [0.5 - 0.8], rtol=1e-6)


def test_the_variables_of_a_step_are_what_it_reads_or_writes(make_programs):
    programs = make_programs(optimizer=keras.optimizers.SGD(0.1))
    programs.step(arrays(), False, Asked())
    names = {variable.name.split(":")[0] for variable in programs.variables}
    assert {"line/kernel", "line/bias"} <= names


# ---- the first trace ----


def test_the_first_trace_finds_terms_and_variables_and_builds_the_optimizers(make_programs):
    noted: list = []
    programs = make_programs(noted=noted.append)
    assert programs.program.discovery.layout is None
    programs.step(arrays(), False, Asked())
    program = programs.program
    assert program.layout.names == ("square", "output")
    assert list(program.trainables.owners) == ["line/kernel", "line/bias"]
    assert program.optimizers.of_group["model"].built
    programs.step(arrays(3, batch_size=3), False, Asked())
    assert noted == [programs]  # once


def test_a_balancer_and_diagnostics_are_made_for_the_terms(make_programs):
    programs = make_programs(balancing.MGDA(), diagnostics_every=2)
    assert programs.balancing_variables == []
    step = programs.step(arrays(), False, Asked())
    assert programs.balanced.names == ("square", "output")
    assert type(programs.program.weighting) is JacobianWeighting
    assert step.diagnostics is programs.diagnostics and step.diagnostics.every == 2
    factors, gramian, at = programs.balancing_variables
    assert (factors.shape, gramian.shape, at.shape) == ((2,), (2, 2), ())
    described = {line.name: line.weight for line in programs.program.objective.described}
    assert described == {"square": "2 * MGDA", "output": "3 * MGDA"}


def test_accumulated_rows_of_a_balancer_are_saved(make_programs):
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    programs = make_programs(balancing.MGDA(), optimizer=optimizer)
    programs.step(arrays(), False, Asked())
    shapes = [tuple(variable.shape) for variable in programs.balancing_variables]
    assert shapes == [(2,), (2, 2, 1), (2, 1)]  # factors; rows of the kernel and the bias


def test_a_variable_that_is_made_anew_at_each_call_is_told(make_programs):
    def compute_terms(step):
        return {"fresh": tf.reduce_sum(tf.Variable(1.0) * step.y_pred)}

    with pytest.raises(ValueError, match="A variable is made anew at each call of a loss or term"):
        make_programs(compute_terms=compute_terms).step(arrays(), False, Asked())


def test_a_parameter_outside_the_scope_cannot_be_compiled_for_replicas(make_programs, two_replicas):
    outside = losses.Parameter("outside", 1.0)

    def compute_terms(step):
        return {"term": tf.convert_to_tensor(outside) * tf.square(step.y_pred[:, 0])}

    programs = make_programs(strategy=two_replicas, compute_terms=compute_terms)
    with pytest.raises(ValueError, match="'outside' were made outside the strategy's scope"):
        programs.step(arrays(), True, Asked())


def test_a_step_is_not_traced_inside_a_strategys_scope(make_programs, two_replicas):
    programs = make_programs()
    with two_replicas.scope(), pytest.raises(RuntimeError, match="inside strategy"):
        programs.step(arrays(), False, Asked())


# ---- what is found is written once ----

LAYOUT = Layout(("a", "b"), ((), ()), (None, None), (False, False))


def trainables_of(*paths):
    variables = {path: losses.Parameter(path, 1.0) for path in paths}
    return TrainableVariables(variables, {}, dict.fromkeys(paths, "model"))


def test_a_discovery_knows_nothing_before_a_trace():
    discovery = Discovery()
    assert discovery.layout is None and discovery.trainables is None
    assert discovery.trainables_found == TrainableVariables()
    with pytest.raises(ValueError, match=r"found by build\(data\) or fit\(data\). Call one first"):
        print(discovery.layout_found)


def test_the_terms_are_those_of_the_first_trace():
    discovery = Discovery()
    discovery.settle_layout(LAYOUT)
    again = Layout(LAYOUT.names, LAYOUT.shapes, (tf.sqrt, None), LAYOUT.undivided)
    discovery.settle_layout(again)  # the same terms: their functions are made anew by each trace
    assert discovery.layout_found is LAYOUT
    other = Layout(("a",), ((),), (None,), (False,))
    with pytest.raises(ValueError, match="gives the terms a, but the run has a, b"):
        discovery.settle_layout(other)
    assert discovery.layout_found is LAYOUT


def test_candidates_are_looked_for_once_and_give_way_to_what_was_reached():
    discovery, found = Discovery(), []

    def find():
        found.append(trainables_of("a", "b"))
        return found[-1]

    for _ in range(2):  # two replicas
        assert discovery.candidates(find) is found[0]
    with pytest.warns(UserWarning, match="No term reaches b"):
        discovery.settle(LAYOUT, found[0], ["a"])
    assert list(discovery.candidates(find).owners) == ["a"] and len(found) == 1
    discovery.settle(LAYOUT, found[0], ["a", "b"])
    assert list(discovery.trainables_found.owners) == ["a"]  # as the first trace has found


def test_other_data_of_a_run_with_other_terms_is_refused(make_programs):
    def compute_terms(step):
        name = "labelled" if step.y is not None else "unlabelled"
        return {name: step.y_pred[:, 0]}

    programs = make_programs(compute_terms=compute_terms)
    programs.step(arrays(), False, Asked())
    with pytest.raises(ValueError, match="gives the terms unlabelled, but the run has labelled"):
        programs.step(arrays(labels=False), False, Asked())
