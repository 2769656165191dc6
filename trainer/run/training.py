"""What trained when a checkpoint was saved, and how a run comes to train the same again."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.loop.programs import Programs
from trainer.model.variables import free_name


def training_of(programs: Programs) -> dict:
    """What a manifest says of what trains: plain values.

    first, now: "1" and "0" for each switch, see `Switches`: as the process had set them before its
    first trace, and as they are set now. slots: group -> its variables in the order of their slots,
    each by its place in the model or by the name of the loss parameter.
    """
    program = programs.program
    places = {id(variable): place for place, variable in enumerate(program.model.variables)}
    return {
        "first": _text(programs.first_settings),
        "now": _text(program.trainables.switches.settings),
        "slots": {
            group.name: [places.get(id(v), path) for path, v in group.originals.items()]
            for group in program.optimizers.updated
        },
    }


def train_as(programs: Programs, saved: Mapping) -> None:
    """Has the run train what it trained when a checkpoint was saved, with the same slots.

    Args:
      programs: traced.
      saved: of `training_of`.
    """
    switches = programs.program.trainables.switches
    if len(saved["now"]) != len(switches.objects):
        return  # of another model, as the comparison of the variables is going to say
    switches.turn(_settings(saved["now"]))
    programs.follow_switches()
    program = programs.program
    parameters = program.trainables.parameters
    slots = {name: _variables(program, places) for name, places in saved["slots"].items()}
    known = all(v is not None for variables in slots.values() for v in variables.values())
    if known and program.optimizers.arrange(slots, parameters):
        programs.trace_anew()


def settled(saved: Mapping, script: tuple[bool, ...]) -> tuple[bool, ...]:
    """How the switches are to be set after a restore.

    As the checkpoint has them, where the process began as the one that saved it did; else as
    this process has set them.

    Args:
      saved: of `training_of`.
      script: as this process has set them.
    Example:
      >>> saved = {"first": "001", "now": "011", "slots": {}}
      >>> settled(saved, (True, False, False))  # another first, one that was changed, another third
      (True, True, False)
    """
    first, now = _settings(saved["first"]), _settings(saved["now"])
    if not len(first) == len(now) == len(script):
        return script
    return tuple(n if s == f else s for f, n, s in zip(first, now, script, strict=True))


def _variables(program, places: list) -> dict:
    """path -> variable of some slots; None in place of one that is not there."""
    model, parameters = program.model.variables, program.trainables.parameters
    by_path: dict = {}
    for place in places:
        inside = isinstance(place, int) and 0 <= place < len(model)
        variable = model[place] if inside else parameters.get(place)
        path = variable.path if inside else str(place)
        by_path[free_name(path, by_path)] = variable
    return by_path


def _text(settings) -> str:
    return "".join("1" if setting else "0" for setting in settings)


def _settings(text: str) -> tuple[bool, ...]:
    return tuple(letter == "1" for letter in text)
