"""A pretrained model with the head that a task needs: checked against the task, loaded and saved.

The only module that touches transformers' `Auto*` classes. Everything loads from a local folder, so that a
missing network cannot cost the half minute that they take to give up.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.contract import Base, Export, ModelSetup, Strategy, Task
from hubtune.errors import ModelError, listing
from hubtune.hub.origin import Origin, fetch
from hubtune.models import compat

if TYPE_CHECKING:
    from torch.nn import Module


def quiet() -> None:
    """The library's bars and load reports would write between our lines; what matters of them is in errors."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def open_base(origin: Origin, task: Task[Any], over: Origin | None = None) -> Base:
    """Configuration and processor, without weights. over: the base model that an adapter takes its configuration from."""
    import transformers

    quiet()
    folder = fetch(origin, origin.small)
    config = open_config(folder if over is None else fetch(over, over.small), over or origin)
    try:
        processor = getattr(transformers, task.processor).from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise ModelError(
            f"its {task.processor.removeprefix('Auto').lower()} cannot be loaded: {first_line(error)}", where=origin.repo,
            hint=f"The task '{task.name}' needs a model that has one. See: hubtune show {origin.repo}",
        ) from error
    return Base(origin.repo, origin.commit, config, processor)


def open_config(folder: Path, origin: Origin) -> Any:
    """The transformers configuration; code in the repository is never run."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise ModelError(
            f"transformers cannot read its config.json: {first_line(error)}", where=origin.repo,
            hint="Code in a repository is not run. A newer transformers may know the architecture: "
            "pip install -U transformers",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of what a library said."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def misfit(config: Any, task: Task[Any] | type[Task[Any]]) -> str | None:
    """Why transformers has no model of this architecture for the task; None when it has."""
    import transformers

    auto = getattr(transformers, task.model)
    if type(config) in auto._model_mapping:
        return None
    kind = task.model.removeprefix("AutoModelFor")
    return f"transformers has no {kind} class for '{config.model_type}' models"


def made_by(config: Any, task: type[Task[Any]]) -> bool:
    """Whether the checkpoint's architecture is the one that the task's class would make."""
    import transformers

    mapping = getattr(transformers, task.model)._model_mapping
    made = mapping.get(type(config), ())
    names = {kind.__name__ for kind in (made if isinstance(made, tuple | list) else (made,))}
    return bool(names & set(config.architectures or ()))


def refuse_misfit(origin: Origin, base: Base, task: Task[Any], strategy: Strategy[Any]) -> None:
    """Refuse what cannot work, from the configuration alone and before weights are downloaded."""
    reason = misfit(base.config, task)
    if reason:
        raise ModelError(f"{reason}, which the task '{task.name}' needs.", where=origin.repo,
                         hint=f"See which tasks fit it with: hubtune show {origin.repo}")
    reason = strategy.refuse(task, base.config)
    if reason:
        raise ModelError(f"the strategy '{strategy.name}' cannot apply: {reason}", where=origin.repo,
                         hint="See the others with: hubtune strategies")


def configured(base: Base, setup: ModelSetup) -> Base:
    """The base with what the task wants written into its configuration."""
    for name, value in setup.config.items():
        setattr(base.config, name, value)
        text = base.config.get_text_config()
        if text is not base.config and hasattr(text, name):
            setattr(text, name, value)
    return Base(base.repo, base.commit, base.config, setup.processor or base.processor, base.max_length)


def skeleton(base: Base, task: Task[Any]) -> Module:
    """The model without memory behind it: its shape is known before its weights are here.

    Refused is one that could be trained and saved but not loaded again: a part of the model, whose configuration no class is for.
    """
    import torch
    import transformers

    auto = getattr(transformers, task.model)
    try:
        with torch.device("meta"):
            model: Any = auto.from_config(base.config)
    except Exception as error:  # a model's constructor may raise anything
        raise ModelError(f"its architecture cannot be built: {first_line(error)}", where=base.repo) from error
    if type(model.config) not in auto._model_mapping:
        raise ModelError(f"the class for '{task.name}' takes a part of it, '{model.config.model_type}', which transformers cannot load "
                         "by itself.", where=base.repo, hint="Take a model of text alone.")
    found: Module = model
    return found


def has_batch_norms(model: Module) -> bool:
    """Whether a model has norms whose statistics are those of the data that it was trained on."""
    from torch.nn.modules.batchnorm import _BatchNorm

    return any(isinstance(part, _BatchNorm) and part.track_running_stats for part in model.modules())


def length_limit(base: Base, shape: Module) -> int | None:
    """The most tokens that the model takes: by its tokenizer, its configuration and its position table."""
    import torch

    limits = [
        getattr(base.processor, "model_max_length", None),
        getattr(base.config.get_text_config(), "max_position_embeddings", None),
    ]
    for name, module in shape.named_modules():
        if isinstance(module, torch.nn.Embedding) and "position" in name.rsplit(".", 1)[-1]:
            first = 0 if module.padding_idx is None else module.padding_idx + 1  # RoBERTa counts on from the pad
            limits.append(module.num_embeddings - first)
    known = [int(limit) for limit in limits if isinstance(limit, int) and 1 < limit < 10**6]
    return min(known) if known else None


def state_limit(base: Base, limit: int | None) -> None:
    """Let the saved tokenizer know the limit, so that `truncation=True` cuts where the model ends."""
    if limit is not None and hasattr(base.processor, "model_max_length"):
        base.processor.model_max_length = limit


def seed_all(seed: int) -> None:
    """Seed what a model's initialisation or a library may draw from."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


@dataclass(frozen=True)
class Loaded:
    """A model with fp32 weights. `missing`: parameters that the checkpoint lacks; `newly_initialized`: these and the head's."""

    model: Module
    newly_initialized: frozenset[str]
    missing: frozenset[str]


def load(
    origin: Origin, base: Base, task: Task[Any], strategy: Strategy[Any], seed: int, code: bool = False
) -> Loaded:
    """The weights of a model in fp32, in the architecture that the task needs. code: run what lies beside the weights."""
    import torch
    import transformers

    folder = fetch(origin, [*origin.small, *origin.weights])
    arguments = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32, **strategy.from_pretrained_kwargs()}

    def made(kind: Any, place: Path | None, **more: Any) -> Any:
        seed_all(seed)  # right before the load, or the new head depends on whatever drew before it
        return kind.from_pretrained(place, config=base.config, output_loading_info=True, ignore_mismatched_sizes=True, **arguments, **more)

    try:
        model, report = made(getattr(transformers, task.model), folder, trust_remote_code=code)
        if names := compat.other_prefix(model, report):
            model, report = made(type(model), None, state_dict=compat.renamed(folder, origin, *names))
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise ModelError(f"its weights cannot be loaded: {first_line(error)}", where=origin.repo) from error
    missing = {str(name) for name in report["missing_keys"]}
    missing |= {str(item[0] if isinstance(item, tuple) else item) for item in report["mismatched_keys"]}
    parameters = dict(model.named_parameters())
    missing &= set(parameters)
    prefix = f"{model.base_model_prefix}."
    body = {name for name in parameters if name.startswith(prefix)}
    head = set(parameters) - body if body and not writes(model) else set()
    lost = sum(parameters[name].numel() for name in missing & body)
    if body and lost > 0.5 * sum(parameters[name].numel() for name in body):
        raise ModelError(
            f"its weights have other names than its architecture: {listing(sorted(missing & body), 4)} would start "
            "from nothing.", where=origin.repo, hint="The checkpoint is damaged or was saved by another library.",
        )
    compat.exact_batch_norms(model)
    return Loaded(model, frozenset(missing | head), frozenset(missing))


def writes(model: Any) -> bool:
    """Whether it is a language model, whose head is pretrained with it."""
    try:
        return model.get_output_embeddings() is not None
    except (NotImplementedError, AttributeError):
        return False


def attach(model: Module, folder: Path) -> Module:
    """A PEFT adapter over its base model; it is only read, not trained on."""
    from peft import PeftModel

    found: Module = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    return found


def save(export: Export, base: Base, folder: Path, origin: Origin, more: Mapping[str, str]) -> None:
    """Write the model as the Hub wants it, with nothing in it that speaks of this machine. more: a task's own files."""
    folder.mkdir(parents=True, exist_ok=True)
    export.root.config._name_or_path = ""
    export.root.save_pretrained(folder, **({} if export.loads_with == "peft" else {"max_shard_size": "5GB"}))
    processor = base.processor
    for part in (processor, getattr(processor, "tokenizer", None)):
        backend = getattr(part, "backend_tokenizer", None)
        if backend is not None:  # or the length of the last batch would be written into tokenizer.json
            backend.no_padding()
            backend.no_truncation()
    processor.save_pretrained(folder)
    for name, part in export.beside.items():
        part.save_pretrained(folder / name)
    for name, text in {**more, **export.files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    if export.config:
        rewrite(folder / "config.json", lambda said: {**said, **export.config})
    where = None if origin.pinned is None else origin.repo
    pin = {"base_model_name_or_path": where, "revision": origin.commit if where else None}

    def without_this_machine(said: dict[str, Any]) -> dict[str, Any]:
        left = {key: value for key, value in said.items() if key not in ("name_or_path", "is_local", "local_files_only")}
        return left | pin if "base_model_name_or_path" in left else left

    for path in folder.rglob("*_config.json"):
        rewrite(path, without_this_machine)


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change a JSON file."""
    said = change(json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def describe_config(config: Any) -> dict[str, Any]:
    """Architecture, number format and labels, of a configuration or of none."""
    dtype = getattr(config, "dtype", None)
    labels = list((getattr(config, "id2label", None) or {}).values())
    return {
        "architectures": list(getattr(config, "architectures", None) or []),
        "model_type": getattr(config, "model_type", None),
        "dtype": str(dtype).removeprefix("torch.") if dtype is not None else None,
        "labels": [] if labels == ["LABEL_0", "LABEL_1"] else labels,  # what transformers says of a model without any
    }
