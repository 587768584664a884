"""Compatibility with libraries: their private names and defects, each with a test of the release.

`tests/architecture/test_private_names.py` lists the only modules that may use private names.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubtune.hub.origin import Origin

if TYPE_CHECKING:
    import torch
    from torch.nn import Module


def model_classes(auto: str, config: Any) -> tuple[type[Any], ...]:
    """Return the classes that an `Auto*` class of transformers has for a configuration.

    transformers has public tables of these classes, but no public way from an `Auto*` class to its
    table.
    """
    import transformers

    kinds = getattr(transformers, auto)._model_mapping.get(type(config), ())
    return tuple(kinds) if isinstance(kinds, tuple | list) else (kinds,)


def model_class(auto: str, config: Any) -> type[Any] | None:
    """Return the class that an `Auto*` class builds from a configuration, or None."""
    return next(iter(model_classes(auto, config)), None)


def own_class(auto: str, config: Any) -> str | None:
    """Return the class that a model's own code has for an `Auto*` class; None without such code.

    config: as `configuration.open_config` returns it, with `auto_map` only where code may run.
    """
    named = (getattr(config, "auto_map", None) or {}).get(auto)
    return str(named).rpartition(".")[2] if named else None


def model_types(auto: str) -> frozenset[str]:
    """Return the model types for which an `Auto*` class has a class, without importing these."""
    import transformers

    return frozenset(getattr(transformers, auto)._model_mapping._model_mapping)


def mismatched_prefix(model: Any, report: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the backbone's prefix in the checkpoint and the model, if only this differs.

    Some classes of transformers name the same backbone differently, so that it would be newly
    initialized: Llama's for question answering has `transformer` where all others have `model`. Decoders of BART and its kin look
    for their embedding under a name of its own, which a checkpoint with the encoder has as `shared`.
    """
    prefix = f"{model.base_model_prefix}."
    own, shared = f"{prefix}decoder.embed_tokens.", f"{prefix}shared."
    if f"{own}weight" in report["missing_keys"] and f"{shared}weight" in report["unexpected_keys"]:
        return shared, own
    missing = [str(name).removeprefix(prefix) for name in report["missing_keys"]
               if str(name).startswith(prefix)]
    prefixes = Counter(key.removesuffix(name) for key in map(str, report["unexpected_keys"])
                       for name in missing if key.endswith(f".{name}"))
    (best, count), *_ = prefixes.most_common(1) or [("", 0)]
    return (best, prefix) if count and count >= 0.5 * len(missing) else None


def fp16_overflow_reason(model: Any) -> str | None:
    """Return why a model may exceed fp16's largest number, 65504; None without a known reason.

    transformers marks the families of T5, whose feed-forward layers overflow; and models pretrained
    in bf16 may use its range.
    """
    kept = sorted(getattr(model, "_keep_in_fp32_modules", None) or ())
    if kept:
        return f"transformers keeps {kept[0]} of this family out of fp16"
    dtype = str(getattr(getattr(model, "config", None), "dtype", None))
    return "it was pretrained in bf16" if "bfloat16" in dtype else None


def make_wrapper(kind: type[Any], shape: Sequence[int], dtype: torch.dtype,
                 device: torch.device) -> Any:
    """Create a tensor without storage, of a subclass of torch.Tensor; torch has no public
    constructor.
    """
    import torch

    return torch.Tensor._make_wrapper_subclass(kind, shape, dtype=dtype, device=device)


def tensor_version(tensor: torch.Tensor) -> int:
    """Return the number of in-place changes of a tensor, which autograd counts in a private
    attribute.
    """
    return tensor._version


def backbone_on_meta(config: Any) -> Any | None:
    """Build the model without a head on the meta device; None where transformers has none."""
    import torch

    kind = model_class("AutoModel", config)
    if kind is None:
        return None
    with torch.device("meta"):
        return kind(copy.deepcopy(config))


def rename_tensors(folder: Path, origin: Origin, before: str, after: str) -> dict[str, Any]:
    """Load the tensors of a checkpoint, replacing one prefix of their names by another."""
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for file in origin.weights:
        tensors |= load_file(folder / file)
    return rename(tensors, before, after)


def rename(tensors: Mapping[str, Any], before: str, after: str) -> dict[str, Any]:
    """Replace one prefix of tensors' names by another."""
    return {after + name.removeprefix(before) if name.startswith(before) else name: value
            for name, value in tensors.items()}


def batch_norms(model: Module) -> list[Any]:
    """Return the batch norms of a model."""
    from hubtune.devices.sharding import BATCH_NORMS

    return [part for part in model.modules() if isinstance(part, BATCH_NORMS)]


def correct_batch_norm_gradients(model: Module) -> None:
    """Make the output gradients of batch norms contiguous.

    torch (2.13, CPU) silently returns a wrong gradient for a batch of one whose output gradient is
    transposed, as in CvT and LeViT, which turn an image into tokens.
    """
    import torch

    def make_contiguous(part: Module, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]

    for part in batch_norms(model):
        part.register_forward_hook(make_contiguous)


def correct_4bit_layers(model: Module) -> None:
    """Make layers that bitsandbytes (0.50) holds in 4 bits fit for training on CPUs, and new layers plain.

    Where a CPU has AVX-512 bf16, the first evaluation packs weights anew: products are then in bf16 whatever the
    run's precision, nothing can be merged, and layers narrower than a block fail. Layers read the attribute that is
    set here before they pack. Weights that the checkpoint lacks are not quantized, which their layers cannot compute.
    """
    import torch

    layers: list[tuple[str, Any]] = list(model.named_modules())
    for name, layer in layers:
        if type(layer).__name__ != "Linear4bit":
            continue
        layer.support_avx512bf16_for_cpu = False
        if not hasattr(layer.weight, "quant_state"):
            with torch.device("meta"):
                plain = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
            plain.weight, plain.bias = layer.weight, layer.bias
            owner, _, last = name.rpartition(".")
            setattr(model.get_submodule(owner), last, plain)


@contextlib.contextmanager
def without_cache(model: Module) -> Iterator[None]:
    """Turn off the key-value cache: some models update it in place, which breaks gradients."""
    configs: dict[int, Any] = {
        id(part.config): part.config for part in model.modules() if hasattr(part, "config")}
    caching = [config for config in configs.values() if getattr(config, "use_cache", False)]
    for config in caching:
        config.use_cache = False
    try:
        yield
    finally:
        for config in caching:
            config.use_cache = True


@contextlib.contextmanager
def padding_inside(config: Any) -> Iterator[None]:
    """Leave out a pad token without a row in the embedding, which torch refuses in its own words."""
    parts = {id(part): part for part in (config, config.get_text_config())}.values()
    kept = [(part, part.pad_token_id) for part in parts
            if isinstance(getattr(part, "pad_token_id", None), int)
            and part.pad_token_id >= (getattr(part, "vocab_size", None) or sys.maxsize)]
    for part, _ in kept:
        part.pad_token_id = None
    try:
        yield
    finally:
        for part, number in kept:
            part.pad_token_id = number
