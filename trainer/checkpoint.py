"""Checkpoints: everything that makes the next step what it would have been."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from trainer.parameters import tensor_variable


class Checkpoints:
    """The checkpoints of a run, kept by TensorFlow's CheckpointManager.

    Variables are saved by their place in each list, not by their automatic names, which count
    what else was made in the process.

    Args:
      directory: `checkpoints/` of the workdir.
      state: dict of lists of variables: model, optimizers, loss parameters, metrics, step, ...
      keep_last: how many checkpoints stay; None keeps all.
    """

    def __init__(self, directory: Path, state: dict, keep_last: int | None):
        lists = {name: [tensor_variable(v) for v in held] for name, held in state.items()}
        self._state = {name: held for name, held in lists.items() if held}
        self._checkpoint = tf.train.Checkpoint(**self._state)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(directory), max_to_keep=keep_last, checkpoint_name="ckpt"
        )

    @property
    def latest(self) -> str | None:
        return self._manager.latest_checkpoint

    def save(self, step: int) -> str:
        """Writes `ckpt-<step>` and returns its path."""
        return self._manager.save(checkpoint_number=step)

    def restore(self, path: str) -> None:
        """Restores every variable.

        Raises:
          ValueError: the checkpoint holds other variables than this run has.
        """
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
        differences = self._differences(shapes)
        if differences:
            raise ValueError(
                f"{path} does not fit this run: {'; '.join(differences[:4])}. Restore it with the "
                "same model, optimizer and terms, or use a new workdir."
            )
        self._checkpoint.restore(path).assert_existing_objects_matched().expect_partial()

    def _differences(self, shapes: dict) -> list[str]:
        suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
        saved = {name.removesuffix(suffix): shape for name, shape in shapes.items()}
        found = []
        for part, held in self._state.items():
            count = sum(name.startswith(f"{part}/") for name in saved)
            if count != len(held):
                found.append(f"{part} has {len(held)} variables, the checkpoint {count}")
                continue
            for index, variable in enumerate(held):
                shape = saved.get(f"{part}/{index}")
                if shape is not None and list(shape) != variable.shape.as_list():
                    found.append(
                        f"{variable.name.split(':')[0]} has shape {tuple(variable.shape)}, "
                        f"the checkpoint {tuple(shape)}"
                    )
        parts = {name.split("/")[0] for name in saved}
        extra = parts - set(self._state) - {"save_counter"}
        extra = {part for part in extra if not part.startswith("_")}  # TensorFlow's own
        found += [f"the checkpoint also holds {part}" for part in sorted(extra)]
        return found
