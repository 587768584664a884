"""Which ways to compute a training's blocks are worth while, chosen before step 0: without padding, and compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hubtune.acceleration import block_compilation, padding_free
from hubtune.devices import processes
from hubtune.errors import TrainingError
from hubtune.training.autotune import Trial, cost, untouched

if TYPE_CHECKING:
    from hubtune.training.loop import Loop


def padding(loop: Loop) -> dict[str, Any]:
    """Have blocks compute no padding where that is wanted, worth while and possible; for `run.json`, whether and why."""
    state, as_it_is, wish = loop.state, loop.context.compute, loop.context.settings.padding_free
    if wish == "off" or state.features.cached:
        return {"used": False, "reason": "train.padding_free=off" if wish == "off" else "what its blocks give is computed once"}
    before = cost(loop)
    state.take(replace(as_it_is, padding=padding_free.COST))
    saved = 1 - cost(loop) / before
    if wish == "auto" and saved < padding_free.WORTH:
        state.take(as_it_is)
        return {"used": False, "reason": f"it would save {max(0.0, saved):.0%} of what steps cost"}
    with untouched(state):
        state.enter(0)
    found = state.padding_free
    assert found is not None
    if not found.used:
        state.take(as_it_is)
        if wish == "on":
            raise processes.once(TrainingError(f"the model's blocks cannot do without padding: {found.reason}.",
                                            hint="Leave train.padding_free at auto."))
    return {"used": found.used, "reason": found.reason}


def compilation(loop: Loop) -> dict[str, Any]:
    """Have blocks compiled where that is wanted, worth while and possible; for `run.json`, whether and why.

    It is tried on a micro-batch, which takes the minutes that compiling takes.
    """
    state, as_it_is, wish = loop.state, loop.context.compute, loop.context.settings.compile
    if wish == "off" or state.features.cached:
        return {"used": False, "reason": "train.compile=off" if wish == "off" else "what its blocks give is computed once"}
    if wish == "auto" and as_it_is.device == "cpu":
        return {"used": False, "reason": "on CPUs nothing is gained"}  # measured: 0.92 to 0.99 of the speed
    plain, seconds = Trial(state).compared()
    if wish == "auto" and seconds * cost(loop) * loop.steps < block_compilation.LONG:
        return {"used": False, "reason": "compiling would take longer than it saves"}
    state.take(replace(as_it_is, compiled=True))
    try:
        found, after = Trial(state).compared()
        reason = block_compilation.against(plain, found, seconds / after if wish == "auto" else None)
    except Exception as error:  # what a compiler meets in a model is anybody's guess
        reason = f"it failed with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    (refused,) = processes.any_of(reason is not None)
    if refused:
        state.take(as_it_is)
        if wish == "on":
            raise processes.once(TrainingError(f"the model's blocks cannot be compiled: {reason}.", hint="Leave train.compile at auto."))
    return {"used": not refused, "reason": reason or "loss and gradient are those of plain blocks"}
