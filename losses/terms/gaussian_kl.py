"""The Kullback-Leibler term of a variational autoencoder, with free bits or a capacity."""

from __future__ import annotations

import keras
import tensorflow as tf

from losses.checks import number
from losses.errors import TermwiseError
from losses.naming import suggestion
from losses.objective import Ratio, Term, model_inputs


@keras.saving.register_keras_serializable(package="termwise")
class GaussianKL(Term):
    """KL divergence of a diagonal Gaussian from the standard normal.

        KL_j = mean over examples of (exp(v_ij) + m_ij^2 - 1 - v_ij) / 2,   v = log variance
        raw  = |sum over latents j of max(free_bits, KL_j)  -  capacity|

    The maximum and the absolute value are of means over the global batch. Without `capacity` there
    is no absolute value.

    Args:
      mean, log_variance: where to read them, floating [examples, ...latents] each: the name of an
        output; or of a layer of a functional model, whose part up to there is then run again (with
        other dropout masks: make it an output where there is dropout); or a function of the step
        (`losses.Step`) that returns the tensor.
      free_bits: float >= 0, in nats: what each latent may hold without cost. Below it, a latent
        has no gradient from this term.
      capacity: None, a number, or a function of the global step such as `schedules.Linear`: the
        divergence, in nats, that this term pulls to.
      weight: as in `Term`; Burgess's gamma.
      name, trains, source: as in `Term`.
    Returns:
      Ratio.
    Raises:
      ValueError: no such output or layer; two shapes; a number outside its range.
    Source: Kingma and Welling 2014, appendix B; free bits: Kingma et al. 2016, eq. 15 (one latent a
      group); capacity: Burgess et al. 2018, eq. 8.

    Example:
      >>> from losses import Step
      >>> step = Step(x=tf.zeros([2, 1]), model=None, step=0, training=True)
      >>> step.y_pred = {"m": tf.constant([[1.0], [3.0]]), "v": tf.zeros([2, 1])}
      >>> float(GaussianKL("m", "v").call(step).value())                   # (1 + 9) / 2 / 2
      2.5
    """

    def __init__(
        self,
        mean,
        log_variance,
        free_bits=0.0,
        capacity=None,
        *,
        weight=1.0,
        name=None,
        trains=None,
        source=None,
    ):
        super().__init__(weight=weight, name=name, trains=trains, source=source)
        for argument, place in (("mean", mean), ("log_variance", log_variance)):
            if not isinstance(place, str) and not callable(place):
                raise TermwiseError(
                    f"GaussianKL({argument}={place!r}): give the name of an output or layer, or a "
                    "function of the step that returns the tensor."
                )
        if capacity is not None and not callable(capacity):
            capacity = number("capacity", capacity, least=0, owner=self)
        self.mean = mean
        self.log_variance = log_variance
        self.free_bits = number("free_bits", free_bits, least=0, owner=self)
        self.capacity = capacity
        self._readers: dict = {}

    def call(self, step):
        mean = self._read(step, self.mean)
        log_variance = self._read(step, self.log_variance)
        if not mean.shape.is_compatible_with(log_variance.shape):
            raise TermwiseError(
                f"Term {self.name!r} read a mean of shape {tuple(mean.shape)} and a log-variance "
                f"of shape {tuple(log_variance.shape)}. Give two tensors of one shape."
            )
        values = 0.5 * (tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance)
        examples = tf.cast(tf.shape(values)[0], values.dtype)
        if not self.free_bits and self.capacity is None:
            by_example = self._by_latent(values)[:, 0]
            return Ratio(tf.reduce_sum(values), examples, values=by_example, counts=1.0)
        sums = tf.reduce_sum(self._by_latent(values), axis=0)
        if self.capacity is None:
            return Ratio(sums, examples, after=self._free)
        # goes along as a mean over the examples: `after` may hold no tensor of this graph
        capacity = self.capacity
        capacity = capacity(step.step) if callable(capacity) else capacity
        capacity = tf.reshape(tf.cast(capacity, values.dtype), [1])
        sums = tf.concat([sums, capacity * examples], axis=0)
        return Ratio(sums, examples, after=lambda m: tf.abs(self._free(m[:-1]) - m[-1]))

    def _free(self, nats):
        """The latents' sum, none of them below `free_bits`."""
        if self.free_bits:
            nats = tf.where(nats > self.free_bits, nats, self.free_bits)
        return tf.reduce_sum(nats)

    def _by_latent(self, values):
        """[examples, latents]; without `free_bits` their sum, [examples, 1], is enough."""
        if not self.free_bits:
            return tf.reduce_sum(values, axis=list(range(1, values.shape.rank)))[:, tf.newaxis]
        latents = values.shape[1:].num_elements()
        if latents is None:
            raise TermwiseError(
                f"Term {self.name!r} read latents of the unknown shape {values.shape}, and "
                "free_bits counts each. Give the model fixed latent sizes, or free_bits=0."
            )
        return tf.reshape(values, [-1, latents])

    def _read(self, step, place):
        if callable(place):
            tensor = place(step)
        else:
            outputs = step.named_outputs()
            tensor = outputs[place] if place in outputs else self._read_layer(step, place, outputs)
        tensor = tf.convert_to_tensor(tensor)
        return tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)

    def _read_layer(self, step, name, outputs):
        model = step.model
        layers = [layer.name for layer in getattr(model, "layers", ())]
        functional = getattr(model, "inputs", None) is not None
        if name not in layers or not functional:
            known = list(filter(None, [*outputs, *(layers if functional else ())]))
            raise TermwiseError(
                f"Term {self.name!r} reads {name!r}; the outputs"
                f"{' and layers' if functional else ''} are {', '.join(map(repr, known))}."
                f"{suggestion(name, known)}"
            )
        key = id(model), name
        if key not in self._readers:
            self._readers[key] = keras.Model(model.input, model.get_layer(name).output)
        with keras.StatelessScope(initialize_variables=False):
            return self._readers[key](model_inputs(model, step.x), training=step.training)

    def get_config(self):
        return {
            **super().get_config(),
            "mean": self.mean,
            "log_variance": self.log_variance,
            "free_bits": self.free_bits,
            "capacity": self.capacity,
        }
