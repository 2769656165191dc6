"""The bound: the products of a step alone, of the shapes that the real step has."""

import math

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.products import BARE, gradients, products_alone
from benchmarks.workloads import WORKLOADS


def multiplications(einsum) -> int:
    """The product of the sizes of all letters of an einsum."""
    letters = einsum.get_attr("equation").decode().split("->")[0].split(",")
    sizes = {}
    for names, given in zip(letters, einsum.inputs, strict=True):
        sizes.update(zip(names, given.shape, strict=True))
    return math.prod(sizes.values())


def products(function, *inputs) -> list[int]:
    """The multiplications of each matrix product in a traced function, sorted."""
    graph = tf.function(function, autograph=False).get_concrete_function(*inputs).graph
    found = []
    for operation in graph.get_operations():
        if operation.type in ("MatMul", "BatchMatMulV2", "BatchMatMul"):
            left = operation.inputs[0].shape
            first = "transpose_a" if operation.type == "MatMul" else "adj_x"
            shared = left[-2] if operation.get_attr(first) else left[-1]
            found.append(operation.outputs[0].shape.num_elements() * shared)
        elif operation.type == "Einsum":
            found.append(multiplications(operation))
    return sorted(found)


@pytest.mark.parametrize("name", ["mlp", "mlp_16x64", "transformer"])
def test_the_bound_has_the_matrix_products_of_the_real_step_and_no_other(name):
    workload = WORKLOADS[name]()
    model, loss = workload.model(), workload.loss()
    x, y = (array[: workload.batch] for array in workload.arrays())

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        return tape.gradient(value, model.trainable_variables)

    bare = BARE[name](workload.batch)
    weights = [tf.constant(weight, tf.float32) for weight in bare.weights]
    found = products(lambda x: gradients(bare, x, weights), tf.zeros(bare.inputs))
    assert found == products(step, tf.constant(x), tf.constant(y))


@pytest.mark.parametrize("name", BARE)
def test_the_gradients_of_the_bound_neither_vanish_nor_overflow(name):
    bare = BARE[name](WORKLOADS[name]().batch)
    weights = [tf.constant(weight, tf.float32) for weight in bare.weights]
    x = tf.random.stateless_normal(bare.inputs, (0, 1))
    found = gradients(bare, x, weights)
    sizes = [float(tf.reduce_max(tf.abs(each))) for each in found]
    assert len(found) == len(weights) + bare.of_words
    assert all(0.1 < size < 1e20 for size in sizes), sizes  # slow to compute is what vanishes


def test_a_round_of_the_bound_takes_the_steps_that_it_is_asked_for():
    workload = WORKLOADS["mlp_16x64"]()
    run = products_alone("mlp_16x64", True)(workload)
    assert run(100) > 0


def test_products_without_xla_give_the_gradients_that_they_give_with_it():
    bare = BARE["mlp_16x64"](16)
    weights = [tf.constant(weight, tf.float32) for weight in bare.weights]
    x = tf.random.stateless_normal(bare.inputs, (0, 1))
    plain = gradients(bare, x, weights)
    jitted = tf.function(lambda x: gradients(bare, x, weights), jit_compile=True, autograph=False)
    compiled = jitted(x)
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
