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


def _evaluates_averages(program: Program) -> bool:
    averages = dict(program.settings).get("use_ema")
    return bool(averages) and program.callback in ("plateau", "stopping", "best")


REASONS = [
    (_adds_half_precision, "Keras 3.15 raises: it adds losses of float32 and of half precision"),
    (_scales_sparse, "Keras 3.15 raises: it divides a sparse gradient by loss_scale_factor"),
    (_evaluates_averages, "a callback watches the validation, of the averages here, not in Keras"),
]
