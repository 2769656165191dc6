"""Every loss, term and weight trains: under the Trainer, XLA, two replicas and Model.compile.

Three steps of the smallest models, the second with a short batch. What one device gives without
XLA is what the others are compared with; that it is right stands in the tests of each loss.
"""

import functools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import schedules
from trainer import Trainer

pytestmark = pytest.mark.slow

EXAMPLES, BATCH, STEPS = 8, 5, 3  # batches of 5, 3 and 5; the replicas' parts are uneven


def random():
    return np.random.default_rng(3)


def init(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def inputs():
    return np.random.default_rng(0).normal(size=(EXAMPLES, 4)).astype("float32")


def sample_weights():
    return np.random.default_rng(1).uniform(0.5, 2.0, EXAMPLES).astype("float32")


# The losses: what makes one, the labels, the shape of the predictions, their activation.


def real(*shape):
    return lambda: random().normal(size=(EXAMPLES, *shape)).astype("float32")


def binary(*shape):
    return lambda: random().integers(0, 2, (EXAMPLES, *shape)).astype("float32")


def classes():
    return np.array([0, 1, 2, 0, 1, 2, 1, 0], "int32")


def one_hot():
    return np.eye(3, dtype="float32")[classes()]


def positive():
    return random().uniform(0.5, 2.0, (EXAMPLES, 3)).astype("float32")


def signs():
    return np.array([[-1.0], [1.0]] * (EXAMPLES // 2), "float32")


def probabilities():
    return random().dirichlet(np.ones(3), EXAMPLES).astype("float32")


def weighted_labels():
    target = real(3)()
    return {"target": target, "weights": np.abs(target) + 0.1}


def boxes():
    low = random().uniform(0.0, 0.5, (EXAMPLES, 2))
    return np.concatenate([low, low + 0.4], -1).astype("float32")


def as_boxes(x):
    low = 0.5 * keras.ops.sigmoid(x[:, :2])
    return keras.ops.concatenate([low, low + 0.6 * keras.ops.sigmoid(x[:, 2:])], -1)


def objects(grid=2):
    """[examples, grid, grid, 1, 7]: one object of two classes in each image."""
    rng, labels = random(), np.zeros((EXAMPLES, grid, grid, 1, 7), "float32")
    for image in labels:
        x, y = rng.uniform(0.05, 0.95, 2)
        box = [x, y, *rng.uniform(0.1, 0.6, 2), 1.0, 1.0, 0.0]
        image[int(y * grid), int(x * grid), 0] = box
    return labels


# The losses of a family train side by side, each on an output of its own: one trace for all.
FAMILIES = {
    "regression": {
        "WeightedMSE": (lambda: losses.WeightedMSE([1.0, 2.0, 0.5]), real(3), (3,)),
        "WeightedMSE_batch": (
            lambda: losses.WeightedMSE([1.0, 2.0, 0.5], reduction_point="batch"),
            real(3),
            (3,),
        ),
        "WeightedRMSE": (lambda: losses.WeightedRMSE([1.0, 2.0, 0.5]), real(3), (3,)),
        "WeightedRMSE_batch": (
            lambda: losses.WeightedRMSE([1.0, 2.0, 0.5], reduction_point="batch"),
            real(3),
            (3,),
        ),
        "GeneralRobust": (lambda: losses.GeneralRobust(-0.5, 0.8), real(3), (3,)),
        "AdaptiveRobust": (lambda: losses.AdaptiveRobust(3), real(3), (3,)),
        "Quantile": (lambda: losses.Quantile([0.1, 0.5, 0.9]), real(1), (3,)),
        "Charbonnier": (losses.Charbonnier, real(3), (3,)),
        "GaussianNLL": (losses.GaussianNLL, real(3), (3, 2)),
        "StudentTNLL": (lambda: losses.StudentTNLL(trainable=True), real(3), (3,)),
        "Wasserstein": (losses.Wasserstein, signs, (1,)),
    },
    "classification": {
        "BinaryFocal": (lambda: losses.BinaryFocal(alpha=0.25), binary(3), (3,)),
        "CategoricalFocal": (lambda: losses.CategoricalFocal(alpha=[0.2, 0.3, 0.5]), one_hot, (3,)),
        "SparseFocal": (lambda: losses.SparseFocal(ignore_class=2), classes, (3,)),
        "SparseCrossentropy": (
            lambda: losses.SparseCrossentropy(0.1, ignore_class=2),
            classes,
            (3,),
        ),
        "Dice_foreground": (
            lambda: losses.Dice(axis=0, smoothing=1.0, exclude=0),
            binary(3),
            (3,),
            "sigmoid",
        ),
        "Dice": (losses.Dice, binary(3), (3,), "sigmoid"),
        "Tversky": (lambda: losses.Tversky(0.7, 0.3), binary(3), (3,), "sigmoid"),
    },
    "detection": {
        "IoU": (losses.IoU, boxes, (4,), as_boxes),
        "IoU_giou": (lambda: losses.IoU("giou"), boxes, (4,), as_boxes),
        "IoU_diou": (lambda: losses.IoU("diou"), boxes, (4,), as_boxes),
        "IoU_ciou": (lambda: losses.IoU("ciou"), boxes, (4,), as_boxes),
        "YOLOv3": (lambda: losses.YOLOv3([[0.3, 0.4]], 2), objects, (2, 2, 1, 7)),
    },
    "embeddings": {
        "Triplet": (losses.Triplet, classes, (3,)),
        "Triplet_hard": (lambda: losses.Triplet(mining="hard", soft=True), classes, (3,)),
        "TripletMargin": (losses.TripletMargin, real(1), (3, 3)),
        "NTXent": (lambda: losses.NTXent(0.5), real(1), (2, 3)),
        "InfoNCE": (lambda: losses.InfoNCE(0.5), real(1), (2, 3)),
        "SupCon": (lambda: losses.SupCon(0.5), classes, (3,)),
        "Contrastive": (losses.Contrastive, binary(1), (1,), "softplus"),
    },
    "classic": {
        "mean_squared_error": (lambda: "mse", real(3), (3,)),
        "mean_absolute_error": (lambda: "mae", real(3), (3,)),
        "mean_absolute_percentage_error": (lambda: "mape", positive, (3,), "softplus"),
        "mean_squared_logarithmic_error": (lambda: "msle", positive, (3,), "softplus"),
        "squared_hinge": (lambda: "squared_hinge", signs, (1,)),
        "hinge": (lambda: "hinge", signs, (1,)),
        "categorical_crossentropy": (lambda: "categorical_crossentropy", one_hot, (3,), "softmax"),
        "sparse_categorical_crossentropy": (
            lambda: "sparse_categorical_crossentropy",
            classes,
            (3,),
            "softmax",
        ),
        "binary_crossentropy": (lambda: "binary_crossentropy", binary(3), (3,), "sigmoid"),
        "kullback_leibler_divergence": (lambda: "kld", probabilities, (3,), "softmax"),
        "poisson": (lambda: "poisson", positive, (3,), "softplus"),
        "cosine_proximity": (lambda: "cosine_proximity", real(3), (3,)),
        "mean_difference": (lambda: "mean_difference", real(3), (3,)),
    },
    # Model.fit takes no label in parts
    "labels in parts": {"WeightedMSE_label": (losses.WeightedMSE, weighted_labels, (3,))},
    # the matrix holds the similarities of a replica's own examples, on one replica other ones
    "by replica": {"NPairs": (losses.NPairs, classes, "similarities")},
}
LOSSES = {loss: family for family, members in FAMILIES.items() for loss in members}


@keras.saving.register_keras_serializable(package="tests")
class Similarities(keras.layers.Layer):
    """Of each example's embedding with all of the batch."""

    def call(self, embeddings):
        return tf.matmul(embeddings, embeddings, transpose_b=True)


def loss_model(family):
    """One dense layer, named as the loss is, for each of the family."""
    x, outputs = keras.Input((4,)), {}
    for seed, (name, (_, _, shape, *activation)) in enumerate(FAMILIES[family].items()):
        size = 3 if shape == "similarities" else int(np.prod(shape))
        h = keras.layers.Dense(size, *activation, kernel_initializer=init(seed), name=name)(x)
        if shape == "similarities":
            h = Similarities()(h)
        outputs[name] = (
            h if len(shape) == 1 or shape == "similarities" else keras.layers.Reshape(shape)(h)
        )
    return keras.Model(x, outputs, name="net")


def make_losses(family):
    return {name: make() for name, (make, *_) in FAMILIES[family].items()}


# The terms, all of one model with three outputs and a classification loss.


def term_model():
    def dense(size, seed, name, activation=None):
        return keras.layers.Dense(size, activation, kernel_initializer=init(seed), name=name)

    x = keras.Input((4,))
    h = dense(6, 1, "h", "tanh")(x)
    outputs = {"m": dense(2, 2, "m")(h), "v": dense(2, 3, "v")(h), "label": dense(3, 4, "label")(h)}
    return keras.Model(x, outputs, name="net")


def critic(step, x):
    return step.model(x)["m"]


def residual(model, x, parameters):
    slope = losses.derivative(lambda z: model(z)["m"], x, 0)
    return slope + parameters["k"] * model(x)["m"]


def noisy(x, seeds):
    # not tf.random.stateless_normal, of which XLA makes other numbers
    noise = tf.cast(tf.math.floormod(seeds, 1000), tf.float32) / 1000.0
    return x + 0.3 * tf.concat([noise, -noise], axis=1)


POINTS = np.random.default_rng(2).normal(size=(5, 4))
TERMS = {
    "AdversarialRegularization": lambda: losses.AdversarialRegularization(step_size=0.1),
    "AdversarialRegularization PGD": lambda: losses.AdversarialRegularization(
        step_size=0.1, steps=2, norm="infinity", epsilon=0.15, random_start=True, clip=(-2.0, 2.0)
    ),
    "AdversarialRegularization l1": lambda: losses.AdversarialRegularization(
        step_size=0.1, norm="l1", feature_mask=[1.0, 1.0, 0.0, 1.0]
    ),
    "VirtualAdversarial": lambda: losses.VirtualAdversarial(epsilon=0.5, output="label"),
    "GaussianKL": lambda: losses.GaussianKL("m", "v"),
    "GaussianKL capacity": lambda: losses.GaussianKL("m", "v", free_bits=0.1, capacity=0.5),
    "GradientPenalty": lambda: losses.GradientPenalty(
        critic=critic, real=lambda s: s.x, fake=lambda s: s.x + 1.0, one_sided=False
    ),
    "Consistency": lambda: losses.Consistency(noisy, {"label": "mse"}),
    "PDEResidual": lambda: losses.PDEResidual(residual, POINTS, parameters={"k": 0.5}),
    "PDEResidual inputs": lambda: losses.PDEResidual(residual, None, parameters={"k": 0.5}),
    "Squares": lambda: losses.Squares(lambda step: step.y_pred["m"] - 1.0, name="squares"),
    "WeightPenalty": lambda: losses.WeightPenalty("*/kernel", "l2"),
}

# The weights, each of a term of its own.
WEIGHTS = {
    "UncertaintyWeight": losses.UncertaintyWeight,
    "UncertaintyWeight_classification": lambda: losses.UncertaintyWeight("classification", 0.5),
    "Linear": lambda: schedules.Linear(0.0, 1.0, steps=2),
    "Cosine": lambda: schedules.Cosine(1.0, 0.0, steps=4),
    "Cyclical": lambda: schedules.Cyclical(period=2),
    "Step": lambda: schedules.Step([1, 2], [1.0, 0.5, 0.1]),
    "Parameter": lambda: losses.Parameter("rate", 0.5, constraint="non_neg", maximize=True),
}


def square(step):
    return tf.reduce_mean(tf.square(step.y_pred["m"]), -1)


def data(run):
    """x, y and sample weights of a family, or of the model of the terms."""
    if run not in FAMILIES:
        return inputs(), {"label": classes()}, {"label": sample_weights()}
    labels = {name: make() for name, (_, make, *_) in FAMILIES[run].items()}
    return inputs(), labels, dict.fromkeys(labels, sample_weights())


def arguments(run):
    """What the Trainer is given, made anew."""
    if run in FAMILIES:
        return {"model": functools.partial(loss_model, run), "loss": make_losses(run)}
    weights = {name: make() for name, make in WEIGHTS.items()} if run == "weights" else None
    return {
        "model": term_model,
        "loss": {"label": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        "terms": [losses.term(square, name=w) for w in weights] if weights else [TERMS[run]()],
        "loss_weights": weights,
    }


@functools.cache
def train(run, strategy="one_device", **more):
    """Rows, and the values of the weights and loss parameters by name, after `STEPS` steps."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No term reaches ")  # outputs of term_model()
        trainer = Trainer(
            optimizer=keras.optimizers.SGD(0.05), strategy=strategy, **arguments(run), **more
        )
        dataset = tf.data.Dataset.from_tensor_slices(data(run)).batch(BATCH)
        rows = trainer.fit(dataset, steps=STEPS, log_every=1, verbose=False).rows
    trained = {v.path: v for v in trainer.model.weights} | trainer.loss_parameters
    return rows, {name: np.asarray(tf.convert_to_tensor(v)) for name, v in trained.items()}


def of_case(case, names):
    """Those of a loss or weight, of all that trained beside it; all of a term."""
    if case in TERMS:
        return {name for name in names if name.startswith(("raw/", "weight/", "total", "loss_par"))}
    kinds = ("raw/", "weight/", "raw/uncertainty/", "weight/uncertainty/")
    own = {f"{kind}{case}" for kind in kinds}
    own = {n for n in names if n in own or n.startswith((f"raw/{case}/", f"weight/{case}/"))}
    assert own, f"nothing of {case} among {names}"
    return own | {name for name in names if name.startswith("loss_parameters/")}


def compare(case, found, expected, rel):
    rows, others = found[0], expected[0]
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row, other in zip(rows, others, strict=True):
        for key in of_case(case, other):
            if other[key] is None:  # a batch without what the term is of
                assert row[key] is None, key
            else:
                assert row[key] == pytest.approx(other[key], rel=rel, abs=2e-7), key


RUNS = {**LOSSES, **{term: term for term in TERMS}, **dict.fromkeys(WEIGHTS, "weights")}


@pytest.mark.one_in(5)
@pytest.mark.parametrize("case", RUNS)
def test_it_trains(case):
    rows, trained = train(RUNS[case])
    for row in rows:
        values = [row[key] for key in of_case(case, row)]
        if case != "Triplet":  # a batch of it may hold no pair of one class
            assert None not in values, row
        assert np.all(np.isfinite([value for value in values if value is not None])), row
        assert row["grad_norm/total"] > 0
    if case in LOSSES:
        before = {v.path: v for v in loss_model(LOSSES[case]).weights}
        assert np.any(trained[f"{case}/kernel"] != np.asarray(before[f"{case}/kernel"].value))


@pytest.mark.one_in(45)
@pytest.mark.parametrize("case", RUNS)
def test_the_compiler_gives_the_same_ledger(case):
    rel = 1e-4 if case == "VirtualAdversarial" else 1e-5  # see its own tests
    compare(case, train(RUNS[case], jit_compile=True), train(RUNS[case]), rel)


@pytest.mark.one_in(16)
@pytest.mark.parametrize("case", [case for case in RUNS if case != "NPairs"])
def test_two_replicas_give_the_ledger_and_weights_of_one(case, two_replicas):
    found, expected = train(RUNS[case], two_replicas), train(RUNS[case])
    compare(case, found, expected, 2e-4 if case == "VirtualAdversarial" else 1e-6)
    for name, value in expected[1].items():
        if case not in LOSSES or name.startswith(f"{case}/"):
            np.testing.assert_allclose(found[1][name], value, rtol=5e-6, atol=5e-6)


def test_what_a_replica_compares_by_itself_trains_on_two(two_replicas):
    rows, _ = train("by replica", two_replicas)
    assert np.all(np.isfinite([row["total"] for row in rows]))


@functools.cache
def compile_and_fit(family):
    """The history of `Model.fit` by output, over the first batch twice."""
    x, y, weight = tf.nest.map_structure(lambda array: array[:BATCH], data(family))
    model = loss_model(family)
    compiled = {name: losses.get(loss) for name, loss in make_losses(family).items()}
    model.compile(keras.optimizers.SGD(0.05), loss=compiled)
    return model.fit(x, y, BATCH, 2, sample_weight=weight, verbose=0, shuffle=False).history


@pytest.mark.one_in(6)
@pytest.mark.parametrize("case", [case for case in LOSSES if case != "WeightedMSE_label"])
def test_model_compile_trains_it_from_the_same_value(case):
    history, row = compile_and_fit(LOSSES[case]), train(LOSSES[case])[0][0]
    first, second = history[f"{case}_loss" if len(FAMILIES[LOSSES[case]]) > 1 else "loss"]
    expected = sum(v for k, v in row.items() if k == f"raw/{case}" or k.startswith(f"raw/{case}/"))
    assert first == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(second) and second != first
