"""What says in Keras whether something trains: the `trainable` of layers and variables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import keras

from losses.layers import layers_of


@dataclass(frozen=True)
class Switches:
    """The layers and variables whose `trainable` a trace has read.

    Attributes:
      objects: outer layers first, variables last, as setting a layer sets what is below it.
      settings: what they were set to when they were looked at.

    Example:
      >>> layer = keras.layers.Dense(1)
      >>> switches = Switches.of(keras.Sequential([keras.Input((2,)), layer]))
      >>> switches.changed
      False
      >>> layer.trainable = False
      >>> switches.changed
      True
    """

    objects: tuple = field(default=(), repr=False, compare=False)
    settings: tuple[bool, ...] = ()

    @classmethod
    def of(cls, model: keras.Model, others: Iterable = ()) -> Switches:
        """Those of a model and, behind them, of others, as they are set now."""
        inside = [*layers_of(model), *model.variables]
        known = {id(switch) for switch in inside}
        outside = {id(switch): switch for switch in others if id(switch) not in known}
        layers = [s for s in outside.values() if isinstance(s, keras.Layer)]
        rest = [s for s in outside.values() if not isinstance(s, keras.Layer)]
        objects = *inside, *sorted(layers, key=lambda layer: -len(layer.variables)), *rest
        return cls(objects, settings_of(objects))

    @property
    def now(self) -> tuple[bool, ...]:
        """What they are set to."""
        return settings_of(self.objects)

    @property
    def changed(self) -> bool:
        """Whether one is set otherwise than when they were looked at."""
        return self.now != self.settings

    def turn(self, settings: Iterable[bool]) -> None:
        """Sets them all."""
        for switch, setting in zip(self.objects, settings, strict=True):
            if switch.trainable != setting:
                switch.trainable = setting


def settings_of(objects: Iterable) -> tuple[bool, ...]:
    return tuple(bool(switch.trainable) for switch in objects)
