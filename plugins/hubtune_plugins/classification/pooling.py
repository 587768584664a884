"""How a head of hubtune's pools the states of a model, where the user chooses it."""

from __future__ import annotations

from typing import Any

from hubtune import RecipeError

OWN_HEAD = "hubtune-head"
"""The model type of a model with a head of hubtune's."""


def pooling_config(config: Any, chosen: str) -> dict[str, str]:
    """Return what the configuration of a model has to say of pooling; nothing where it is not chosen.

    Raises:
        RecipeError: the model's own class pools, or it has nothing to be pooled.
    """
    if chosen == "auto":
        return {}
    if config.model_type != OWN_HEAD:
        raise RecipeError(
            f"task.pooling={chosen} is for heads of hubtune's; '{config.model_type}' models have a class in transformers, "
            "which pools in its own way.", hint="Leave task.pooling out.")
    if config.pooling == "none":
        raise RecipeError(f"task.pooling={chosen} has nothing to pool: '{config.backbone_config.model_type}' models give one state per row.",
                          hint="Leave task.pooling out.")
    return {"pooling": chosen}
