"""How hypothesis draws programs: the plain choice comes first, to which a fault shrinks."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.differential.programs import CALLBACKS, LOSSES, MODELS, Program

# Every optimizer of Keras but Muon and MultiOptimizer, with settings that matter to it.
OPTIMIZERS: dict[str, dict[str, list]] = {
    "SGD": {"momentum": [0.9], "nesterov": [True]},
    "Adam": {"amsgrad": [True], "beta_1": [0.5], "epsilon": [1e-3]},
    "AdamW": {"weight_decay": [0.1], "amsgrad": [True]},
    "RMSprop": {"momentum": [0.5], "centered": [True], "rho": [0.5]},
    "Adagrad": {"initial_accumulator_value": [0.5]},
    "Adadelta": {"rho": [0.8], "learning_rate": [1.0]},
    "Adamax": {"beta_2": [0.9]},
    "Nadam": {"beta_1": [0.5]},
    "Ftrl": {"l1_regularization_strength": [0.01], "learning_rate_power": [-0.4]},
    "Lion": {"weight_decay": [0.1]},
    "Lamb": {"beta_1": [0.5]},
    "Adafactor": {"clip_threshold": [0.5], "relative_step": [False]},
    "LossScaleOptimizer": {},
}
EVERY_OPTIMIZER: dict[str, list] = {
    "clipnorm": [0.3],
    "global_clipnorm": [0.3],
    "clipvalue": [0.05],
    "weight_decay": [0.05],
    "use_ema": [True],
    "gradient_accumulation_steps": [2, 3],
    "loss_scale_factor": [4.0],
}
CLIPS = ("clipnorm", "global_clipnorm", "clipvalue")
SEQUENCES = ("recurrent", "sequences")


@st.composite
def settings_of(draw, optimizer: str) -> tuple:
    """(name, value) pairs of an optimizer's arguments."""
    choices = {**EVERY_OPTIMIZER, **OPTIMIZERS[optimizer]}
    names = draw(st.lists(st.sampled_from(sorted(choices)), unique=True, max_size=3))
    clips = [name for name in names if name in CLIPS]
    names = [name for name in names if name not in clips[1:]]  # Keras takes one
    if "nesterov" in names and "momentum" not in names:
        names.append("momentum")
    return tuple((name, draw(st.sampled_from(choices[name]))) for name in names)


@st.composite
def programs(draw, replicas: bool = False) -> Program:
    """A program that Keras takes.

    Args:
      replicas: leave out what two replicas are not asked for here: XLA.
    """
    model = draw(st.sampled_from(list(MODELS)))
    loss = draw(st.sampled_from(list(LOSSES)))
    optimizer = draw(st.sampled_from([name for name in OPTIMIZERS if name != "LossScaleOptimizer"]))
    settings = draw(settings_of(optimizer))
    accumulates = "gradient_accumulation_steps" in dict(settings)
    plain = accumulates or model in SEQUENCES
    examples, batch = draw(st.sampled_from([(16, 8), (12, 4), (15, 6), (9, 9)]))
    if accumulates:  # an update is the mean over its examples, which Keras has for equal steps only
        examples, batch = 24, 4
        loss = "mse" if loss == "ignoring" or model in SEQUENCES else loss
    weights = None if plain else draw(st.sampled_from([None, "examples", "some"]))
    steps = draw(st.integers(3, 6))
    callback = draw(st.sampled_from([None, None, *CALLBACKS]))
    schedule = None if callback else draw(st.sampled_from([None, "exponential", "piecewise"]))
    if callback:
        steps = 3 * -(-examples // batch)
    compiled = not replicas and draw(st.integers(0, 7)) == 7
    return Program(
        model=model,
        frozen=draw(st.sampled_from([(), (), ("middle",), ("hidden",)])),
        regularizer=draw(st.sampled_from(_regularizers(model, compiled))),
        activity=draw(st.booleans()),
        loss=loss,
        reduction=draw(st.sampled_from(["sum_over_batch_size", "sum", "mean_with_sample_weight"])),
        weights=weights,
        class_weight=_may_weigh_classes(model, loss, accumulates, weights) and draw(st.booleans()),
        optimizer=optimizer,
        settings=settings,
        schedule=schedule,
        callback=callback,
        policy=draw(st.sampled_from(["float32", "float32", "mixed_bfloat16", "mixed_float16"])),
        pipeline=draw(st.booleans()),
        examples=examples,
        batch=batch,
        steps=steps,
        interrupted=draw(st.one_of(st.none(), st.integers(1, steps - 1))),
        jit_compile=compiled,
    )


def _regularizers(model: str, compiled: bool) -> list:
    """Keras makes no convolution orthogonal; XLA has no slope of that at rows of zeros."""
    orthogonal = model != "convolutional" and not compiled
    return [None, "l1", "l2", *(["orthogonal"] if orthogonal else [])]


def _may_weigh_classes(model, loss, accumulates, weights) -> bool:
    ids = LOSSES[loss].labels in ("ids", "one-hot")
    return ids and not accumulates and not weights and model not in (*SEQUENCES, "two_outputs")
