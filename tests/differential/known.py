"""Programs that Keras cannot train, or means otherwise: not compared with it, with the reason."""

from __future__ import annotations

from tests.differential.programs import Program


def reason(program: Program) -> str | None:
    """Why a program is not compared with Keras; None where it is."""
    for applies, why in REASONS:
        if applies(program):
            return why
    return None


def _adds_half_precision(program: Program) -> bool:
    adds = program.activity or program.model == "counting"
    return adds and program.policy != "float32"


def _scales_sparse(program: Program) -> bool:
    scales = "loss_scale_factor" in dict(program.settings)
    return scales and program.model in ("recurrent", "sequences")


def _watches(program: Program) -> bool:
    """Whether a callback decides by the validation."""
    return program.callback in ("plateau", "stopping", "best")


def _ends_with_averages(program: Program) -> bool:
    return bool(dict(program.settings).get("use_ema")) and program.callback is not None


def _evaluates_sums(program: Program) -> bool:
    return program.reduction == "sum" and _watches(program)


def _accumulates_masked(program: Program) -> bool:
    return program.accumulated is not None and program.model == "sequences"


REASONS = [
    (_adds_half_precision, "Keras 3.15 raises: it adds losses of float32 and of half precision"),
    (_scales_sparse, "Keras 3.15 raises: it divides a sparse gradient by loss_scale_factor"),
    (_ends_with_averages, "Keras's fit leaves the averages in the weights; here they stay beside"),
    (_accumulates_masked, "accumulated steps count by what their masks leave here, alike in Keras"),
    (_evaluates_sums, "a callback watches a sum, over the data set here, over a batch in Keras"),
]
