"""The gradient penalty of a Wasserstein critic: slope 1 between real and generated examples."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.checks import number, pick
from losses.errors import TermwiseError
from losses.example_random import example_keys, uniform
from losses.objective import Term


@keras.saving.register_keras_serializable(package="termwise")
class GradientPenalty(Term):
    """How far the slope of a critic is from a target, between real and generated examples.

        raw = mean over examples of (||gradient of critic(z) by z||_2 - target)^2
        z = t real + (1 - t) fake,   t uniform in (0, 1), one for each example and step

    With `one_sided`, slopes below the target cost nothing. z is a place to look at: no gradient
    flows through it to the generator. What the passes at z leave in moving statistics is dropped.

    Args:
      target: float >= 0; 0 at `fake=real` is the R1 penalty (times 2).
      one_sided: bool.
      critic: the name of a layer of the model (a nested model is one) or of an attribute that
        holds it; or a function `(step, x)` that returns the scores of x, [examples, ...]; or a
        Keras layer.
      real, fake: the name of an output or of an input, or a function of the step (`losses.Step`):
        floating [examples, ...] of one shape.
      seed: int, of t.
      weight: as in `Term`; 10 in the paper.
      name, trains, source: as in `Term`; `trains="critic"` where the critic's variables are a
        group.
    Returns:
      float32 [examples].
    Raises:
      ValueError: no such layer, output or input; two shapes; a number outside its range.
    Source: Gulrajani et al. 2017, eq. 3; one-sided: section 4 there. R1: Mescheder et al. 2018.

    Example:
      >>> import numpy as np
      >>> from losses import Step
      >>> critic = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
      >>> critic.set_weights([np.array([[3.0], [4.0]]), np.zeros(1)])
      >>> step = Step(x=tf.zeros([2, 2]), model=critic, step=0, training=True)
      >>> term = GradientPenalty(critic=critic, real=lambda s: s.x, fake=lambda s: s.x + 1.0)
      >>> term.call(step).numpy().tolist()                                   # (5 - 1)^2
      [16.0, 16.0]
    """

    def __init__(
        self,
        target=1.0,
        one_sided=False,
        *,
        critic,
        real,
        fake,
        seed=0,
        weight=1.0,
        name=None,
        trains=None,
        source=None,
    ):
        super().__init__(weight=weight, name=name, trains=trains, source=source)
        self.target = number("target", target, least=0, owner=self)
        self.one_sided = bool(one_sided)
        for argument, value in (("critic", critic), ("real", real), ("fake", fake)):
            if not isinstance(value, str) and not callable(value):
                what = "(step, x)" if argument == "critic" else "of the step"
                raise TermwiseError(
                    f"GradientPenalty({argument}={value!r}): give a name, or a function {what}."
                )
        self.critic = critic
        self.real = real
        self.fake = fake
        self.seed = int(seed)

    def call(self, step):
        real, fake = self._read(step, self.real), self._read(step, self.fake)
        if not real.shape.is_compatible_with(fake.shape):
            raise TermwiseError(
                f"Term {self.name!r} goes from real examples of shape {tuple(real.shape)} to "
                f"generated ones of shape {tuple(fake.shape)}. Give both one shape."
            )
        share = uniform(example_keys(step.x, self.seed, step.step), 1)
        share = tf.cast(tf.reshape(share, [-1] + [1] * (real.shape.rank - 1)), real.dtype)
        between = tf.stop_gradient(share * real + (1.0 - share) * fake)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(between)
            with keras.StatelessScope(initialize_variables=False):
                scores = tf.reduce_sum(self._scores(step, between))
        slope = tape.gradient(scores, between, unconnected_gradients="zero")
        axes = list(range(1, slope.shape.rank))
        squared = tf.reduce_sum(tf.square(tf.cast(slope, tf.float32)), axis=axes)
        steep = squared > 0  # the root has no derivative at 0
        slope = tf.where(steep, tf.sqrt(tf.where(steep, squared, 1.0)), 0.0)
        off = slope - self.target
        return tf.square(tf.nn.relu(off) if self.one_sided else off)

    def _read(self, step, place):
        if callable(place):
            tensor = tf.convert_to_tensor(place(step))
        else:
            inputs = step.x if isinstance(step.x, dict) else {}
            tensors = {**inputs, **step.named_outputs()}
            tensor = tf.convert_to_tensor(pick(tensors, place, self.name, "inputs and outputs"))
        if not tensor.dtype.is_floating:
            raise TermwiseError(
                f"Term {self.name!r} takes the slope between floating examples, received "
                f"{tensor.dtype.name}. Cast them in the data."
            )
        return tensor

    def _scores(self, step, x):
        if isinstance(self.critic, keras.Layer):
            return self.critic(x, training=step.training)
        if callable(self.critic):
            return self.critic(step, x)
        attributes = vars(step.model).items()
        layers = {name: value for name, value in attributes if isinstance(value, keras.Layer)}
        layers.update({layer.name: layer for layer in step.model.layers})
        return pick(layers, self.critic, self.name, "layers")(x, training=step.training)

    def get_config(self):
        return {
            **super().get_config(),
            "target": self.target,
            "one_sided": self.one_sided,
            "critic": self.critic,
            "real": self.real,
            "fake": self.fake,
            "seed": self.seed,
        }
