"""Bases that cannot be trained, or not by every strategy, for how they are loaded: refused before anything is computed."""

from __future__ import annotations

from typing import Any

from hubtune.contract import Strategy
from hubtune.errors import ModelError, RecipeError
from hubtune.hub import trust
from hubtune.hub.origin import Origin, read_run_record


def check_needs_no_code(origin: Origin) -> None:
    """Refuse a base that a strategy has published with code of its own, which is a part of the method."""
    if trust.needs_no_code(origin):
        return
    if read_run_record(origin).get("loads_with") == "code" and not origin.runs_code:
        raise ModelError(
            "it loads with code that lies beside its weights, which hubtune does not run to tune "
            "it further.", where=origin.repo, hint="Tune the model that it was made from.")


def check_published_base(origin: Origin, strategy: Strategy[Any]) -> None:
    """Refuse a strategy that is published over its base, for a base that its files could not name.

    Raises:
        RecipeError: the base loads with its own code, or is in a sub-folder of its repository.
    """
    if origin.adapter is not None and strategy.loads_with == "peft":
        raise RecipeError(
            f"'{strategy.name}' is published as an adapter over its base model, and '{origin.adapter.repo}' would be "
            "merged into that here alone.", hint="Choose a strategy that is published as a whole model: --strategy lora")
    if origin.subfolder and strategy.loads_with == "peft":
        raise RecipeError(
            f"'{strategy.name}' is published as an adapter over its base model, and PEFT cannot name one in a "
            f"sub-folder ('{origin.subfolder}' of '{origin.repo}').",
            hint="Choose a strategy that is published as a whole model: --strategy lora")
    if strategy.loads_with == "peft" and trust.needs_no_code(origin):
        raise RecipeError(
            f"'{strategy.name}' is published as an adapter over its base model, and '{origin.repo}' loads with the code "
            "beside its weights, which PEFT does not run.",
            hint="Choose a strategy that is published as a whole model: --strategy lora")
    if origin.runs_code and strategy.loads_with != "transformers":
        raise RecipeError(
            f"'{strategy.name}' is published as {'an adapter' if strategy.loads_with == 'peft' else 'code'} over a model of "
            f"transformers, and '{origin.repo}' loads with code of its own.",
            hint="Choose a strategy that is published as a whole model: --strategy full, lora or head")
