"""Adversarial regularization: the loss of inputs moved a little to where it is larger."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from losses.checks import number, whole
from losses.distributed import owned
from losses.errors import TermwiseError
from losses.example_random import example_keys
from losses.objective import Layout, Ratio, Term, compiled_ratios, name_losses
from losses.terms.float_inputs import FloatInputs
from losses.terms.norm_ball import check_norm, project, random_point, steepest


@keras.saving.register_keras_serializable(package="termwise")
class AdversarialRegularization(Term):
    """The labelled loss of adversarially perturbed inputs.

        raw = sum over compiled losses of loss_weight * L(y, model(x + d))
        d is, from 0 and `steps` times over,  d + step_size * argmax over ||v|| <= 1 of g . v
        projected to ||d|| <= epsilon;   g = gradient of the loss by x at x + d

    The norm is taken for each example, jointly over all its floating inputs; integer inputs stay
    as they are. One step is the fast gradient (sign) method, several are projected gradient
    descent. Labels and sample weights are those of the step; regularizers are not part of the
    loss. No gradient flows through d. Elements of g that are not finite count as 0.

    The passes through the perturbed inputs run with the step's `training` and leave no trace:
    moving statistics stay those of clean inputs, and the pass that finds d draws the same dropout
    masks as the pass that counts. Several compiled losses give one sub-term each,
    `<name>/<loss>`. A trainable weight of a compiled loss scales its sub-term without learning
    from it.

    Args:
      loss: None (the compiled losses), or other ones as `Trainer(loss=)` takes them.
      weight: as in `Term`.
      step_size: float > 0, the norm of one step.
      norm: "l2", "infinity" or "l1".
      steps: int >= 1. Each is a forward and a backward pass, and part of the traced graph.
      epsilon: float > 0, the largest norm of d; None does not project.
      random_start: bool; d starts uniform in the ball of `epsilon` (or `step_size`), different
        for each example and step.
      clip: None or (lowest, highest), the range of the perturbed inputs; either may be None. A
        dict or list of numbers or arrays by input is accepted for each of the two. An input that
        lies outside is brought into it.
      feature_mask: None, or a number or array that broadcasts to the inputs, or a dict or list of
        these by input. Multiplies g before the norm is taken: 0 keeps a feature as it is.
      seed: int, of the random start.
      name, trains, source: as in `Term`.
    Returns:
      Ratio, or dict compiled loss -> Ratio.
    Raises:
      ValueError: an argument outside its range; no floating input; no compiled loss.
    Source: Goodfellow et al. 2015; Madry et al. 2018; the semantics of Neural Structured Learning,
      except that a small gradient is normalized like a large one.

    Example:
      >>> import numpy as np
      >>> from losses import Step
      >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
      >>> model.set_weights([np.array([[3.0], [4.0]])])
      >>> step = Step(x=tf.zeros([1, 2]), y=tf.ones([1, 1]), model=model, step=0, training=True)
      >>> step.y_pred = model(step.x)
      >>> term = AdversarialRegularization(loss="mse", step_size=0.1)
      >>> round(float(term.call(step).value()), 6)     # y_pred falls by 0.1 * ||w||: (1 + 0.5)^2
      2.25
    """

    def __init__(
        self,
        loss=None,
        weight=0.2,
        step_size=0.001,
        norm="l2",
        steps=1,
        epsilon=None,
        random_start=False,
        clip=None,
        feature_mask=None,
        *,
        seed=0,
        name=None,
        trains=None,
        source=None,
    ):
        super().__init__(weight=weight, name=name, trains=trains, source=source)
        self.loss = loss
        self.step_size = number("step_size", step_size, above=0, owner=self)
        self.norm = check_norm(type(self).__name__, norm)
        self.steps = whole("steps", steps, owner=self)
        if epsilon is not None:
            epsilon = number("epsilon", epsilon, above=0, owner=self)
        self.epsilon = epsilon
        self.random_start = bool(random_start)
        if clip is not None and (not isinstance(clip, (tuple, list)) or len(clip) != 2):
            raise TermwiseError(
                f"AdversarialRegularization(clip={clip!r}): give a pair (lowest, highest), "
                "such as (0.0, 1.0), or None."
            )
        self.clip = None if clip is None else tuple(clip)
        self.feature_mask = feature_mask
        self.seed = int(seed)
        self._losses = None

    def call(self, step):
        inputs = FloatInputs(step.x, self.name)
        clean = inputs.rows
        masked = self._mask(inputs)
        keep_in = self._range(inputs)
        moved = clean
        if self.random_start:
            moved = keep_in(clean + masked(self._random_start(step, clean)))
        for _ in range(self.steps):
            gradient = masked(self._gradient(step, inputs, moved))
            moved += self.step_size * steepest(gradient, self.norm)
            if self.epsilon is not None:
                moved = clean + project(moved - clean, self.norm, self.epsilon)
            moved = keep_in(moved)
        ratios = self._ratios(step, inputs.with_rows(tf.stop_gradient(moved)))
        if self.loss is None:
            weights = tf.stop_gradient(step.compiled_weights(list(ratios)))
            pairs = zip(ratios.items(), tf.unstack(weights), strict=True)
            ratios = {name: _times(ratio, weight, step) for (name, ratio), weight in pairs}
        return next(iter(ratios.values())) if len(ratios) == 1 else ratios

    def _mask(self, inputs):
        """A function that multiplies rows by the feature mask."""
        if self.feature_mask is None:
            return lambda rows: rows
        mask = inputs.spread(self.feature_mask, "feature_mask", 1.0)
        return lambda rows: rows * mask

    def _random_start(self, step, clean):
        """A point of the ball for each example, float32 [examples, features]."""
        keys = example_keys(step.x, self.seed, step.step)
        radius = self.epsilon or self.step_size
        return random_point(keys, tf.shape(clean)[1], self.norm, radius)

    def _range(self, inputs):
        """A function that keeps rows in the clip range."""
        if self.clip is None:
            return lambda rows: rows
        lowest, highest = (
            inputs.spread(bound, "clip", math.copysign(math.inf, sign))
            for bound, sign in zip(self.clip, (-1, 1), strict=True)
        )
        return lambda rows: tf.clip_by_value(rows, lowest, highest)

    def _ratios(self, step, x) -> dict[str, Ratio]:
        if self.loss is None:
            ratios = step.compiled_terms(x=x)
        else:
            y_pred = step.forward(x)
            if self._losses is None:
                self._losses = name_losses(self.loss, y_pred, step.output_names)
            ratios = compiled_ratios(
                self._losses,
                y=step.y,
                y_pred=y_pred,
                sample_weight=step.sample_weight,
                examples=step.examples,
                output_names=step.output_names,
            )
        if not ratios:
            raise TermwiseError(
                f"Term {self.name!r} has no loss to increase: there is no loss=. Pass loss= to the "
                "Trainer, or AdversarialRegularization(loss=...)."
            )
        return ratios

    def _gradient(self, step, inputs, rows):
        """Of the loss by the inputs, finite, up to a positive factor: [examples, features]."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(rows)
            ratios = self._ratios(step, inputs.with_rows(rows))
            layout = Layout.of(ratios)
            numerators, denominators = layout.pack(ratios)
            with tape.stop_recording():
                cotangents = self._cotangents(step, layout, numerators, denominators)
            loss = tf.reduce_sum(cotangents * numerators)
        gradient = tape.gradient(loss, rows, unconnected_gradients="zero")
        return tf.where(tf.math.is_finite(gradient), gradient, 0.0)

    def _cotangents(self, step, layout, numerators, denominators):
        """The loss's derivative by each numerator, [K], the largest scaled to 1."""
        weights = tf.ones([len(layout.names)])
        if self.loss is None:
            weights = step.compiled_weights(layout.names)
        sums = tf.stack([numerators, denominators])
        replica = tf.distribute.get_replica_context()
        alone = replica is None or replica.num_replicas_in_sync == 1
        # one mean: whatever divides it leaves the direction as it is
        one_mean = layout.sizes == [1] and layout.afters == (None,)
        if not alone and not one_mean:
            sums = replica.all_reduce(tf.distribute.ReduceOp.SUM, owned(sums))
        _, cotangents = layout.raw_and_cotangents(sums[0], sums[1], weights)
        return tf.math.divide_no_nan(cotangents, tf.reduce_max(tf.abs(cotangents)))

    def get_config(self):
        return {
            **super().get_config(),
            "loss": self.loss,
            "step_size": self.step_size,
            "norm": self.norm,
            "steps": self.steps,
            "epsilon": self.epsilon,
            "random_start": self.random_start,
            "clip": self.clip,
            "feature_mask": self.feature_mask,
            "seed": self.seed,
        }


def _times(ratio: Ratio, weight, step) -> Ratio:
    """A Ratio whose value is `weight` times that of `ratio`, a function of global sums or not."""
    weight = tf.cast(weight, ratio.numerator.dtype)
    if ratio.after is None:
        values = None if ratio.values is None else ratio.values * weight
        of_values = {"values": values, "counts": ratio.counts, "weights": ratio.weights}
        numerator = ratio.numerator * weight
        return Ratio(numerator, ratio.denominator, present=ratio.present, **of_values)
    after, shape = ratio.after, ratio.numerator.shape
    size = shape.num_elements()
    sums = tf.reshape(ratio.numerator, [size])
    # the weight goes along as a mean over the examples: `after` may hold no tensor of this graph
    examples = tf.cast(step.examples, sums.dtype)
    share = tf.stack([weight * examples, examples])
    numerator = tf.concat([sums, share], axis=0)
    denominator = None
    if ratio.denominator is not None:
        denominator = tf.broadcast_to(ratio.denominator, shape)
        denominator = tf.concat([tf.reshape(denominator, [size]), tf.ones([2], sums.dtype)], axis=0)

    def weighted(sums):
        share = tf.math.divide_no_nan(sums[size], sums[size + 1])
        return share * after(tf.reshape(sums[:size], shape))

    return Ratio(numerator, denominator, weighted, present=ratio.present)
