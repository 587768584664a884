"""Load a pretrained model with the head that a task needs, in fp32."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune import guest, temporary
from hubtune.contract import Base, GenerativeTask, Strategy, Task
from hubtune.contract.validation import checked
from hubtune.errors import ModelError
from hubtune.hub import headers
from hubtune.hub.origin import Origin, fetch
from hubtune.models import bounds, compat, peft_adapters
from hubtune.models.completeness import check_completeness, check_finite, missing_weights
from hubtune.models.foreign import model_errors
from hubtune.models.heads import checkpoint, choice

if TYPE_CHECKING:
    from torch.nn import Module


def meta_model(base: Base, task: Task[Any]) -> Module:
    """Build the model on the meta device: its shapes are known before its weights are fetched.

    Raises:
        ModelError: the architecture cannot be built; or the class uses only a part of it that has
            no class of its own in transformers, so that the trained model could not be loaded
            again.
    """
    import torch
    import transformers

    with model_errors("its architecture cannot be built", base.repo):
        kind = choice.class_of(task.model, base.config)
    if kind is not None:
        with (model_errors("its architecture cannot be built", base.repo), torch.device("meta"),
              bounds.bounded_build(base.repo), compat.padding_inside(base.config)):
            made: Module = kind(base.config)
            return made
    with (model_errors("its architecture cannot be built", base.repo), torch.device("meta"),
          bounds.bounded_build(base.repo), compat.padding_inside(base.config)):
        own = compat.own_class(task.model, base.config)
        model: Module = getattr(transformers, task.model).from_config(
            base.config, trust_remote_code=own is not None)
    if not own and compat.model_class(task.model, model.config) is None:
        raise ModelError(
            f"the class for '{task.name}' uses only its part '{model.config.model_type}', "  # type: ignore[union-attr]
            "which transformers cannot load on its own.",
            where=base.repo,
            hint="Choose a text-only model.")
    return model


def has_batch_norms(model: Module) -> bool:
    """Tell whether a model has norms with running statistics of their training data."""
    return any(part.track_running_stats for part in compat.batch_norms(model))


def seed_all(seed: int) -> None:
    """Seed the generators that a model's initialization or a library may use."""
    import numpy as np
    import torch

    guest.save_library_states()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)


@dataclass(frozen=True)
class Loaded:
    """A model with fp32 weights.

    Attributes:
        newly_initialized: names of the parameters that the checkpoint lacks, and of the head.
        missing: names of the parameters that the checkpoint lacks.
    """

    model: Module
    newly_initialized: frozenset[str]
    missing: frozenset[str]


def load(origin: Origin, base: Base, task: Task[Any], strategy: Strategy[Any], seed: int,
         num_embeddings: int | None = None) -> Loaded:
    """Load the weights of a model in fp32, in the architecture that the task needs.

    Args:
        origin: its code runs where it says `runs_code`.
        seed: of parameters that the checkpoint lacks.
        num_embeddings: enlarge the embedding of tokens to so many rows.

    Raises:
        ModelError: the weights cannot be loaded, or do not match the architecture's names.
    """
    import torch
    import transformers

    if origin.adapter is not None:
        with temporary.Folder() as scratch:
            merged = peft_adapters.merge(origin, scratch / "merged")
            return load(merged, base, task, strategy, seed, num_embeddings)
    folder = fetch(origin, [*origin.small, *origin.weights])
    names = headers.read_headers(origin)  # refuses files that safetensors would refuse in its own words
    arguments = {
        "config": base.config, "use_safetensors": True, "local_files_only": True,
        "dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True,
        **({"variant": origin.variant} if origin.variant else {}), **strategy.from_pretrained_kwargs()}

    def from_pretrained(kind: Any, place: Path | None, **more: Any) -> Any:
        seed_all(seed)  # right before loading: a new head must not depend on earlier random numbers
        return kind.from_pretrained(place, **arguments, **more)

    with model_errors("its weights cannot be loaded", origin.repo), compat.padding_inside(base.config):
        model: Any
        kind: Any = choice.class_of(task.model, base.config) or getattr(transformers, task.model)
        if choice.is_head(base.config):
            seed_all(seed)
            model, report = checkpoint.load(kind, base.config, folder, names, arguments)
        else:
            model, report = from_pretrained(kind, folder, trust_remote_code=origin.runs_code)
            if prefixes := compat.mismatched_prefix(model, report):
                tensors = compat.rename_tensors(folder, origin, *prefixes)
                model, report = from_pretrained(type(model), None, state_dict=tensors)
    check_completeness(origin, model, report)
    check_finite(origin.repo, model)
    missing = missing_weights(model, report) & dict(model.named_parameters()).keys()
    if num_embeddings is not None:
        with model_errors("its embedding cannot be enlarged", origin.repo):
            model.resize_token_embeddings(num_embeddings)
        for config in (model.config, model.config.get_text_config()):
            config.pad_token_id = getattr(base.config.get_text_config(), "pad_token_id", None)
    set_generation(model, task, base)
    compat.correct_batch_norm_gradients(model)
    compat.correct_4bit_layers(model)
    return Loaded(model, missing | head_parameters(model), missing)


def set_generation(model: Any, task: Task[Any], base: Base) -> None:
    """Write a generative task's settings into the generation configuration, which is saved with the model.

    It is made anew: one that transformers marks as made from the model's configuration loses attributes of a
    model's own, such as Whisper's language, when it is loaded again.
    """
    if not isinstance(task, GenerativeTask) or getattr(model, "generation_config", None) is None:
        return
    settings = checked(task, "generation_config", task.generation_config(base))
    if settings:
        kept = {name: value for name, value in model.generation_config.to_dict().items() if not name.startswith("_")}
        model.generation_config = type(model.generation_config).from_dict({**kept, **settings})


def backbone_parameters(model: Any) -> frozenset[str]:
    """Return the parameter names under the model's base model prefix; none without such a part."""
    prefix = f"{model.base_model_prefix}."
    return frozenset(name for name, _ in model.named_parameters() if name.startswith(prefix))


def head_parameters(model: Module) -> frozenset[str]:
    """Return the parameter names of a head; none for a language model's, which is pretrained."""
    backbone = backbone_parameters(model)
    if not backbone or is_language_model(model):
        return frozenset()
    return frozenset(dict(model.named_parameters())) - backbone


def is_language_model(model: Any) -> bool:
    """Tell whether the model has output embeddings, which are pretrained with it."""
    try:
        return model.get_output_embeddings() is not None
    except (NotImplementedError, AttributeError):
        return False
