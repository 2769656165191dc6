"""Virtual adversarial training: predictions that stay the same around each example; no labels."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.checks import number, pick, whole
from losses.example_random import example_keys, normal
from losses.objective import Term, mask_of, reduce_values
from losses.terms.float_inputs import FloatInputs
from losses.terms.norm_ball import steepest

TINY = 1e-30  # far below any probability that float32 resolves beside 1


@keras.saving.register_keras_serializable(package="termwise")
class VirtualAdversarial(Term):
    """How far the predicted distribution moves under the worst small change of the inputs.

        raw = mean over examples of KL(p(x) || p(x + epsilon d)),   p(x) held fixed
        d: `iterations` times over,  d <- g / ||g||_2,  g = gradient of KL(p(x) || p(x + xi d)) by d

    d starts in a random direction, another for each example and step. It is a power iteration: d
    tends to the direction in which KL bends most. Norms are taken for each example, jointly over
    all its floating inputs. Both distributions are taken with the same dropout masks, and the
    passes leave no trace in moving statistics.

    Args:
      weight: as in `Term`.
      epsilon: float > 0, the l2 norm of the change.
      xi: float > 0, the step of the finite difference; larger where float16 blurs it.
      iterations: int >= 1; each is a forward and a backward pass.
      output: name of the output that holds the distribution; needed where there are several.
      from_logits: bool; the output's last axis holds logits, else probabilities. One logit or
        probability is that of a yes-or-no answer.
      seed: int, of the first directions.
      name, trains, source: as in `Term`.
    Returns:
      Ratio, the mean over examples (over time steps too, where the output has them; masked ones
      do not count).
    Raises:
      ValueError: an argument outside its range; no floating input; no such output.
    Source: Miyato et al. 2018, algorithm 1.

    Example:
      >>> import numpy as np
      >>> from losses import Step
      >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
      >>> model.set_weights([np.array([[2.0, -2.0], [0.0, 0.0]])])
      >>> step = Step(x=tf.zeros([1, 2]), model=model, step=0, training=True)
      >>> step.y_pred = model(step.x)
      >>> value = VirtualAdversarial(epsilon=0.5).call(step).value()
      >>> round(float(value), 4)      # along the first input, KL((.5, .5) || softmax(1, -1))
      0.4338
    """

    def __init__(
        self,
        weight=1.0,
        *,
        epsilon,
        xi=1e-2,
        iterations=1,
        output=None,
        from_logits=True,
        seed=0,
        name=None,
        trains=None,
        source=None,
    ):
        super().__init__(weight=weight, name=name, trains=trains, source=source)
        self.epsilon = number("epsilon", epsilon, above=0, owner=self)
        self.xi = number("xi", xi, above=0, owner=self)
        self.iterations = whole("iterations", iterations, owner=self)
        self.output = output
        self.from_logits = bool(from_logits)
        self.seed = int(seed)

    def call(self, step):
        inputs = FloatInputs(step.x, self.name)
        size = tf.shape(inputs.rows)[1]
        direction = steepest(normal(example_keys(step.x, self.seed, step.step), size), "l2")
        clean = step.y_pred
        if step.training and _draws(step.model):
            clean = step.forward(step.x)  # with the masks that the passes below will draw
        clean = self._read(step, clean)
        mask = mask_of(clean)
        log_p = tf.stop_gradient(self._log_probabilities(clean))

        def divergence(rows):
            y_pred = self._read(step, step.forward(inputs.with_rows(inputs.rows + rows)))
            log_q = self._log_probabilities(y_pred)
            values = tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)
            return reduce_values(values, mask=mask, term=self.name)

        for _ in range(self.iterations):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(direction)
                moved = divergence(self.xi * direction).numerator
            gradient = tape.gradient(moved, direction, unconnected_gradients="zero")
            steep = steepest(tf.where(tf.math.is_finite(gradient), gradient, 0.0), "l2")
            # where the predictions do not move at all, any direction is as good as another
            still = tf.reduce_all(steep == 0, axis=1, keepdims=True)
            direction = tf.where(still, direction, steep)
        return divergence(tf.stop_gradient(self.epsilon * direction))

    def _read(self, step, y_pred):
        return pick(step.named_outputs(y_pred), self.output, self.name, "outputs")

    def _log_probabilities(self, y_pred):
        """float32 [examples, ..., classes], of a distribution over the last axis."""
        y_pred = tf.convert_to_tensor(y_pred)
        y_pred = tf.cast(y_pred, tf.float64 if y_pred.dtype == tf.float64 else tf.float32)
        if y_pred.shape.rank == 1:
            y_pred = y_pred[:, tf.newaxis]
        if y_pred.shape[-1] == 1:
            other = tf.zeros_like(y_pred) if self.from_logits else 1.0 - y_pred
            y_pred = tf.concat([other, y_pred], axis=-1)
        if self.from_logits:
            return tf.nn.log_softmax(y_pred)
        return tf.math.log(tf.maximum(y_pred, TINY))

    def get_config(self):
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "xi": self.xi,
            "iterations": self.iterations,
            "output": self.output,
            "from_logits": self.from_logits,
            "seed": self.seed,
        }


def _draws(model):
    """Whether the model draws random numbers, as far as its variables say."""
    return any("seed" in variable.path for variable in model.non_trainable_variables)
