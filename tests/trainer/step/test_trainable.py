"""What a step trains: the passes its variables need, and which of them some term reaches."""

import keras
import pytest
import tensorflow as tf

import losses
from losses.objective.layout import Layout
from trainer.optimizers.optimizers import Optimizers
from trainer.step.trainable import TrainableVariables, find_trainables

LAYOUT = Layout(("real", "fake"), ((), ()), (None, None), (False, False))


def variables_of(groups, parameters=()):
    """Variables by name in these groups; those named as parameters are in none of the model's."""
    variables = {name: losses.Parameter(name, 1.0) for name in (*groups, *parameters)}
    return TrainableVariables(
        variables,
        parameters={name: variables[name] for name in parameters},
        owners={**groups, **dict.fromkeys(parameters, "loss_parameters")},
        groups=groups,
    )


def never(group):
    return False


def test_terms_that_train_all_they_reach_need_one_pass():
    trainables = variables_of({"a": "model", "b": "model"})
    assert trainables.passes(LAYOUT, {}, never) == {((True, True), False): ["a", "b"]}


def test_a_term_that_trains_one_group_is_masked_out_of_the_others():
    trainables = variables_of({"g": "generator", "c": "critic"})
    passes = trainables.passes(LAYOUT, {"fake": ("generator",), "real": ()}, never)
    assert passes == {((True, True), False): ["g"], ((True, False), False): ["c"]}


def test_what_is_in_no_group_is_trained_by_every_term():
    trainables = variables_of({"g": "generator"}, parameters=["temperature"])
    passes = trainables.passes(LAYOUT, {"fake": ("generator",)}, never)
    assert passes == {((True, True), False): ["g", "temperature"]}


def test_variables_whose_optimizer_accumulates_have_a_pass_of_their_own():
    trainables = variables_of({"g": "generator", "c": "critic"})
    passes = trainables.passes(LAYOUT, {}, lambda group: group == "critic")
    assert passes == {((True, True), False): ["g"], ((True, True), True): ["c"]}


@pytest.mark.parametrize(
    "groups, told",
    [
        ({"g": "generator"}, "trains 'critics'; the groups are 'generator'"),
        ({"g": "model"}, "the groups are none: pass groups="),
    ],
)
def test_a_term_that_trains_a_group_that_is_not_there_is_an_error(groups, told):
    with pytest.raises(ValueError, match=told):
        variables_of(groups).passes(LAYOUT, {"fake": ("critics",)}, never)


def test_what_some_term_reaches_trains():
    trainables = variables_of({"a": "model", "b": "model"}, parameters=["p"])
    reached = trainables.reached_by(["a", "b", "p"])
    assert reached == trainables


def test_a_variable_of_the_model_that_no_term_reaches_is_told_and_stays():
    trainables = variables_of({"a": "model", "b": "model"})
    with pytest.warns(UserWarning, match="No term reaches b: they stay as they are"):
        reached = trainables.reached_by(["a"])
    assert reached.owners == {"a": "model"}
    assert set(reached.variables) == {"a", "b"}


def test_a_parameter_that_no_term_reaches_is_left_out_without_a_word():
    reached = variables_of({"a": "model"}, parameters=["p", "q"]).reached_by(["a", "q"])
    assert list(reached.parameters) == ["q"]
    assert reached.owners == {"a": "model", "q": "loss_parameters"}


def test_a_step_that_reaches_nothing_is_an_error():
    with pytest.raises(ValueError, match="No term depends on any trainable variable"):
        variables_of({"a": "model"}).reached_by([])


def test_the_values_of_parameters_are_read_by_name():
    trainables = variables_of({"a": "model"}, parameters=["p"])
    assert {n: float(v) for n, v in trainables.parameter_values().items()} == {"p": 1.0}


def find(model, parameter, groups=None, optimizer="sgd", **arguments):
    """What is found of a step that read the model's variables and a parameter."""
    strategy = tf.distribute.get_strategy()
    optimizers = Optimizers(strategy, optimizer, groups=groups, **arguments)
    watched = [v.value for v in (*model.trainable_variables, parameter)]
    return find_trainables(watched, model, groups=groups, optimizers=optimizers, places=[])


def test_what_a_step_reads_beside_the_model_is_a_loss_parameter(make_line):
    parameter = losses.Parameter("temperature", 1.0)
    trainables = find(make_line(), parameter)
    assert list(trainables.variables) == ["line/kernel", "line/bias", "temperature"]
    assert trainables.parameters == {"temperature": parameter}
    assert set(trainables.owners.values()) == {"model"}


def test_a_parameter_with_the_name_of_a_model_variable_is_told_apart(make_line):
    with keras.name_scope("line"):
        parameter = losses.Parameter("kernel", 1.0)
    trainables = find(make_line(), parameter)
    assert list(trainables.parameters) == ["line/kernel (loss)"]
    assert trainables.variables["line/kernel"] is not parameter


def test_parameters_go_to_the_optimizer_of_their_own(make_line):
    parameter = losses.Parameter("temperature", 1.0)
    owners = find(make_line(), parameter, loss_parameter_optimizer="adam").owners
    assert owners == {
        "line/kernel": "model",
        "line/bias": "model",
        "temperature": "loss_parameters",
    }


def test_a_group_without_an_optimizer_is_frozen(make_line):
    groups = {"kernels": "*/kernel", "biases": "*/bias"}
    owners = find(make_line(), losses.Parameter("p"), groups, optimizer={"kernels": "sgd"}).owners
    assert owners == {"line/kernel": "kernels", "p": "kernels"}


def test_a_variable_of_the_model_in_no_group_is_an_error(make_line):
    with pytest.raises(ValueError, match="Variables in no group: line/bias"):
        find(make_line(), losses.Parameter("p"), {"kernels": "*/kernel"})
