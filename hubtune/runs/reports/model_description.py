"""Describe a model from its files, without weights: its facts, and the tasks and strategies that fit it."""

from __future__ import annotations

from typing import Any

from hubtune.contract import Strategy, Task, registry
from hubtune.errors import ModelError, Unsafe
from hubtune.hub import adapters
from hubtune.hub.forms import check_form, require_loadable, weight_formats
from hubtune.hub.headers import count_parameters
from hubtune.hub.origin import Origin, fetch, locate
from hubtune.models import configuration
from hubtune.models.heads import choice

MEMORY = {"predict": 4, "train_all": 16, "train_frozen": 4}
"""Bytes for each weight in fp32: of itself, with its gradient and both moments of AdamW, and frozen."""


def describe_model(model: str) -> dict[str, Any]:
    """Return what `hubtune show` prints of a model; `memory` is in bytes."""
    origin, config, problem = open_to_show(model)
    plugins = registry.load()
    count = count_parameters(origin)
    pinned = origin.pinned
    tasks = []
    for name, kind in sorted(plugins.tasks.items()):
        reason = problem
        if config is None:
            reason = reason or "it has no config.json"
        else:
            reason = reason or configuration.unsupported_reason(config, kind)
        head = choice.describe(kind.for_config(config).model, config) if config is not None and not reason else None
        tasks.append({**availability(name, reason, registry.unavailable(kind)), "head": head})
    fitting = next((plugins.tasks[task["name"]].for_config(config) for task in tasks if task["fits"]), None)
    return {
        "model": origin.repo, "commit": origin.commit,
        "adapter": origin.adapter.repo if origin.adapter else None,
        **configuration.describe_config(config), "parameters": count,
        "memory": count and {name: count * size for name, size in MEMORY.items()},
        "weights": weight_formats(origin), "license": origin.card.get("license"),
        "gated": bool(pinned and pinned.gated), "private": bool(pinned and pinned.private),
        "pipeline_tag": (pinned.pipeline_tag if pinned else None)
        or origin.card.get("pipeline_tag"), "tasks": tasks, "strategies": [
            availability(name, problem, registry.unavailable(kind), refusal(kind, fitting, config))
            for name, kind in sorted(plugins.strategies.items())
        ],
    }


def open_to_show(model: str) -> tuple[Origin, Any, str | None]:
    """Return a model's origin, its configuration, and why it cannot be trained, as far as is known."""
    origin = locate(model)
    config, problem = None, None
    try:
        origin = adapters.over_base(origin)
        if "config.json" in origin.files:
            folder = fetch(origin, origin.small)
            config = configuration.open_config(folder, origin)
            check_form(configuration.read_config(folder, origin), origin)
        require_loadable(origin)
    except (ModelError, Unsafe) as error:
        problem = error.message
    return origin, config, problem


def refusal(kind: type[Strategy[Any]], task: type[Task[Any]] | None, config: Any) -> str | None:
    """Return why a strategy with its defaults cannot train a model for a task; None if it can."""
    if task is None or registry.unavailable(kind) or registry.unavailable(task):
        return None
    reason: str | None = kind().refuse(task(), config)
    return reason


def availability(name: str, *reasons: str | None) -> dict[str, Any]:
    """Tell whether a plugin fits, with the first reason against it."""
    reason = next((reason for reason in reasons if reason), None)
    return {"name": name, "fits": reason is None, "reason": reason}
