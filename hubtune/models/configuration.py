"""Configuration and processor of a pretrained model, checked before weights are fetched.

Everything loads from a local folder: without a network, the `Auto*` classes time out after half a
minute.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import guest
from hubtune.contract import Base, ModelSetup, Strategy, Task
from hubtune.contract.validation import checked
from hubtune.errors import ModelError, listing
from hubtune.files import read_json
from hubtune.hub.origin import Origin, fetch, fetch_outer
from hubtune.hub.trust import HEAD_TYPE, is_built_here, trust_hint
from hubtune.models import bounds, compat, image_processors, vocabulary
from hubtune.models.foreign import model_errors
from hubtune.models.heads import choice

if TYPE_CHECKING:
    from torch.nn import Module


def silence_transformers() -> None:
    """Turn off progress bars and logging of transformers until the current API call ends."""
    import transformers

    library = transformers.logging
    guest.defer(functools.partial(library.set_verbosity, library.get_verbosity()))
    library.set_verbosity_error()
    if library.is_progress_bar_enabled():
        from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars

        if are_progress_bars_disabled():  # transformers would enable those of the Hub with its own
            guest.defer(disable_progress_bars)
        guest.defer(library.enable_progress_bar)
        library.disable_progress_bar()


def open_base(origin: Origin, task: Task[Any], base_origin: Origin | None = None) -> Base:
    """Load the configuration and the processor, without weights.

    Args:
        origin: a model, or an adapter over one.
        base_origin: the base model of an adapter, which has the configuration.

    Raises:
        ModelError: the configuration or the processor cannot be read.
    """
    silence_transformers()
    adapter = origin.adapter
    own = adapter if adapter is not None and "tokenizer_config.json" in adapter.files else origin
    folder = fetch(origin, origin.small)
    config_folder = folder if base_origin is None else fetch(base_origin, base_origin.small)
    config = choice.with_head(task.model, open_config(config_folder, base_origin or origin))
    with model_errors(
            f"its {task.processor.removeprefix('Auto').lower()} cannot be loaded", origin.repo,
            f"The task '{task.name}' needs a model that has one. See: hubtune show {origin.repo}"):
        processor = load_processor(task, fetch(own, own.small), origin.runs_code)
    if choice.is_head(config) and hasattr(processor, "padding_side"):
        processor.padding_side = "right"  # a state space model reads padding before a text
    base = Base(origin.repo, origin.commit, config, processor, folder=task_files(origin, task))
    vocabulary.check_words(base)
    return base


def load_processor(task: Task[Any], folder: Path, runs_code: bool) -> Any:
    """Load the processor of a model; one of images that transformers has for torchvision alone also without this package.

    This makes pixels and no more, so that tasks whose answers are places in an image need the original.
    """
    import transformers

    if task.processor == "AutoImageProcessor" and choice.HEADS.get(task.model, ("", ""))[1] == "image":
        plain = image_processors.without_torchvision(folder)
        if plain is not None:
            return plain
    kind = getattr(transformers, task.processor)
    return kind.from_pretrained(folder, local_files_only=True, trust_remote_code=runs_code)


def task_for_model(origin: Origin, task: Task[Any], base_origin: Origin | None = None) -> Task[Any]:
    """Return the task for a model: the given one, or one of the class that `Task.for_config` names, with its attributes.

    Args:
        base_origin: the base model of an adapter, which has the configuration.

    Raises:
        ModelError: the configuration cannot be read.
    """
    source = base_origin or origin
    config = open_config(fetch(source, source.small), source)
    kind = checked(task, "for_config", task.for_config(config))
    if kind is type(task):
        return task
    made = kind(task.options)
    vars(made).update(vars(task))  # such as the loss and the metrics of the recipe
    return made


def task_files(origin: Origin, task: Task[Any]) -> Path | None:
    """Fetch the files of a repository that a task reads beside its weights; returns their folder, if there are any."""
    wanted = [name for name in origin.outer if any(
        fnmatch.fnmatchcase(name, pattern) for pattern in task.base_files)]
    return fetch_outer(origin, wanted) if wanted else None


def read_config(folder: Path, origin: Origin) -> dict[str, Any]:
    """Read the config.json in a folder as it is, within bounds.

    Raises:
        ModelError: it is missing, no JSON object, or asks for what no model has.
    """
    where = f"{origin.repo}/config.json"
    config = read_json(folder / "config.json", where, "Correct it, or fetch the model again.")
    bounds.check_counts(config, where)
    for name in ("id2label", "label2id"):
        table = config.get(name)
        if table is not None and not (isinstance(table, dict) and all(
                isinstance(value, str | int | float) for value in table.values())):
            raise ModelError(f"'{name}' must be an object of labels and numbers, not {table!r:.100}.",
                             where=where, hint="Correct it, or fetch the model again.")
    names = config.get("architectures")
    if names is not None and not (isinstance(names, list)
                                  and all(isinstance(name, str) for name in names)):
        raise ModelError(f"'architectures' must be a list of names, not {names!r:.100}.",
                         where=where, hint="Correct it, or fetch the model again.")
    return config


def open_config(folder: Path, origin: Origin) -> Any:
    """Load the transformers configuration in a folder.

    Code beside it runs only where the user named it; else `auto_map` is left out.
    """
    from transformers import AutoConfig

    read = read_config(folder, origin)
    named = read.get("auto_map")
    head, built = read.get("model_type") == HEAD_TYPE, is_built_here(read)
    hint = "A newer transformers may know the architecture: pip install -U transformers"
    if named and not origin.runs_code and not built:
        hint = f"It names code of its own, which runs only if you name it. {trust_hint(origin)}"
    with model_errors("transformers cannot read its config.json", origin.repo, hint):
        config = choice.open_head(folder) if head else AutoConfig.from_pretrained(
            folder, local_files_only=True, trust_remote_code=origin.runs_code)
        if hasattr(config, "auto_map") and (built or not origin.runs_code):
            del config.auto_map
        labels = getattr(config, "id2label", None) or {}
        if not all(isinstance(label, str) for label in labels.values()):  # numbers, or true and false
            config.id2label = {number: str(label) for number, label in labels.items()}
        config.get_text_config()  # of a model with several parts, which may contradict each other
        return config


def unsupported_reason(config: Any, task: Task[Any] | type[Task[Any]]) -> str | None:
    """Return why there is no model of this architecture for the task; None if there is.

    It is a class of transformers, or a head of hubtune's on the base model.
    """
    return choice.refusal(task.for_config(config).model, config)


def matches_architecture(config: Any, task: type[Task[Any]]) -> bool:
    """Tell whether the checkpoint was saved by a class that the task's `Auto*` class would load."""
    task = task.for_config(config)
    names = {kind.__name__ for kind in compat.model_classes(task.model, config)}
    if own := compat.own_class(task.model, config):
        names.add(own)
    if choice.is_head(config) and task.model in choice.HEADS:
        names.add(choice.HEADS[task.model][0])
    return bool(names & set(config.architectures or ()))


def check_fit(origin: Origin, base: Base, task: Task[Any], strategy: Strategy[Any]) -> None:
    """Refuse a model that does not fit the task or the strategy, from its configuration alone.

    Raises:
        ModelError: transformers has no class for the task, or the strategy refuses the model.
    """
    reason = unsupported_reason(base.config, task)
    if reason:
        raise ModelError(f"the task '{task.name}' does not fit: {reason}.", where=origin.repo,
                         hint=f"See which tasks fit it with: hubtune show {origin.repo}")
    if choice.is_head(base.config) and not (strategy.loads_with == "transformers" or strategy.config_key):
        raise ModelError(
            f"the strategy '{strategy.name}' is published over a class of transformers, and it has "
            f"none for the task '{task.name}': its head is hubtune's.", where=origin.repo,
            hint="Choose a strategy that is published as a whole model: --strategy full, lora or head")
    reason = checked(strategy, "refuse", strategy.refuse(task, base.config))
    if reason:
        raise ModelError(
            f"the strategy '{strategy.name}' cannot apply: {reason}", where=origin.repo,
            hint="See the others with: hubtune strategies")


def trained_labels(config: Any, task: Task[Any]) -> list[str]:
    """Return the labels of the head that a model has for this task; none without a head or names."""
    labels = list((getattr(config, "id2label", None) or {}).values())
    is_named = any(label != f"LABEL_{index}" for index, label in enumerate(labels))
    return labels if is_named and matches_architecture(config, type(task)) else []


def describe_head(own: Sequence[str], wanted: Sequence[str], labels: Sequence[str]) -> str | None:
    """Say what becomes of the trained head of a base model; None if there is nothing to say.

    Args:
        own: the labels that the head was trained for. wanted: those of the data. labels: those
            that the tuned model gets.
    """
    if not own or not wanted:
        return None
    if list(labels) == list(own):
        how = "are the base model's own" if set(wanted) == set(own) else (
            "differ from the base model's own in spelling only")
        return (f"labels: those of the data {how} ({listing(own)}): its names, their order and its "
                "trained head are kept.")
    before = f"labels: the base model's head was trained for other labels ({listing(own)})"
    if len(labels) == len(own):
        return f"{before}, as many as the data has: its weights are where training starts."
    return f"{before}: the head for {listing(labels)} is new."


def apply_setup(base: Base, setup: ModelSetup) -> Base:
    """Write the task's settings into the configuration, and into the one of its text model."""
    for name, value in setup.config.items():
        setattr(base.config, name, value)
        text = base.config.get_text_config()
        if text is not base.config and hasattr(text, name):
            setattr(text, name, value)
    processor = setup.processor or base.processor
    for name, value in setup.tokenizer.items():
        setattr(processor, name, value)
    return replace(base, processor=processor)


def length_limit(base: Base, model: Module) -> int | None:
    """Return the maximum number of tokens, by the tokenizer, configuration and position embeddings.

    Args:
        model: may be on the meta device.
    """
    import torch

    limits = [
        getattr(base.processor, "model_max_length", None),
        getattr(base.config.get_text_config(), "max_position_embeddings", None),
    ]
    beside = towers_beside_text(base.config, model)
    for name, module in model.named_modules():
        if name.startswith(beside):  # positions in an image
            continue
        if isinstance(module, torch.nn.Embedding) and "position" in name.rsplit(".", 1)[-1]:
            # RoBERTa counts positions from the padding index + 1.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
    known = [int(limit) for limit in limits if isinstance(limit, int) and 1 < limit < 10**6]
    return min(known) if known else None


def towers_beside_text(config: Any, model: Module) -> tuple[str, ...]:
    """Return the beginnings of the names inside the parts of a model that have another sub-configuration than its text."""
    text = config.get_text_config()
    others = {type(part) for name in getattr(config, "sub_configs", None) or ()
              if (part := getattr(config, name, None)) is not None and part is not text} - {type(text)}
    return tuple(f"{name}." for name, module in model.named_modules()
                 if text is not config and name and type(getattr(module, "config", None)) in others)


def set_length_limit(base: Base, limit: int | None) -> None:
    """Set the tokenizer's limit, so that the saved one truncates with `truncation=True`."""
    if limit is not None and hasattr(base.processor, "model_max_length"):
        base.processor.model_max_length = limit


def describe_config(config: Any) -> dict[str, Any]:
    """Return architectures, model type, number format and labels of a configuration, or of None."""
    dtype = getattr(config, "dtype", None)
    labels = list((getattr(config, "id2label", None) or {}).values())
    return {
        "architectures": list(getattr(config, "architectures", None) or []),
        "model_type": getattr(config, "model_type", None),
        "dtype": str(dtype).removeprefix("torch.") if dtype is not None else None,
        # transformers' default names, of models without labels
        "labels": [] if labels == ["LABEL_0", "LABEL_1"] else labels,
    }
