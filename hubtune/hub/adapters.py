"""A PEFT adapter as a base model: the model that it was made for, at a commit, and what can be merged into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from hubtune.errors import ModelError, Unsafe
from hubtune.files import read_json
from hubtune.hub.origin import Origin, fetch, locate

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ADDED_INPUTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT", "CARTRIDGE", "ADAPTION_PROMPT", "POLY")
"""Methods of PEFT whose weights stay beside the model, since they are no change of its own weights."""


def over_base(origin: Origin, commit: str | None = None) -> Origin:
    """Return the origin of the base model of an adapter, with the adapter to merge; of other models the same.

    Args:
        commit: of the base model, where it is known; else the revision that the adapter names.

    Raises:
        ModelError: the adapter cannot be merged, or its base model is not named or not there.
        Unsafe: its weights are a pickle.
    """
    if CONFIG not in origin.files:
        return origin
    said = read_config(origin)
    if said.get("peft_type") in ADDED_INPUTS:
        raise ModelError(
            f"'{origin.repo}' is an adapter of the kind {said['peft_type']}, which is read beside the inputs and cannot be "
            "merged into a model.", where=origin.repo, hint=f"Train from its base model: --model {said.get('base_model_name_or_path')}")
    if WEIGHTS not in origin.files:
        kind = Unsafe if "adapter_model.bin" in origin.files else ModelError
        raise kind(f"'{origin.repo}' is an adapter (PEFT) without {WEIGHTS}.", where=origin.repo,
                   hint="Load it with PEFT where you trust it, and save it anew: save_pretrained writes safetensors.")
    base = locate(base_name(origin, said), commit or said.get("revision"))
    if CONFIG in base.files:
        raise ModelError(f"its base model '{base.repo}' is an adapter itself.", where=origin.repo,
                         hint="Merge the first adapter with PEFT (merge_and_unload) and name the saved folder as the base.")
    return replace(base, adapter=origin)


def read_config(origin: Origin) -> dict[str, Any]:
    """Read the configuration of an adapter."""
    return read_json(fetch(origin, [CONFIG]) / CONFIG, f"{origin.repo}/{CONFIG}", "Fetch the adapter again.")


def base_name(origin: Origin, said: dict[str, Any]) -> str:
    """Return the name of the model that an adapter was made for."""
    name = said.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ModelError(f"'{origin.repo}' is an adapter over a base model that it does not name.", where=origin.repo,
                         hint=f"Name it in {CONFIG}: base_model_name_or_path")
    if (origin.pinned is not None and Path(name).expanduser().exists()) or (Path(name).is_absolute() and not Path(name).is_dir()):
        raise ModelError(f"'{origin.repo}' is an adapter over a folder of its author, '{name:.200}'.", where=origin.repo,
                         hint=f"Download it, and name the base model in {CONFIG}: base_model_name_or_path")
    return name
