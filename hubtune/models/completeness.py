"""Completeness of a pretrained model: which of its weights a load may miss, and numbers that are none.

A task replaces a model's head, and may use a pooler that the checkpoint lacks. Everything else has
to come from the checkpoint: the rest of a model with random parts trains without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from hubtune.errors import ModelError, listing
from hubtune.hub.headers import TensorHeader
from hubtune.hub.origin import Origin
from hubtune.models import compat
from hubtune.models.heads import checkpoint, choice

if TYPE_CHECKING:
    from torch.nn import Module

POOLER = "pooler"
"""The part of a backbone that not every checkpoint has: some classes are saved without it."""
MASKS = ("mask_token", "masked_spec_embed")
"""Vectors in place of masked inputs, which only pretraining and augmentation use."""
STATISTICS = ("running_mean", "running_var")
"""Buffers of batch norms that come from the checkpoint, as weights do."""
SHOWN = 4
"""Tensors that a message names."""
REPAIR = (
    "Its config.json and its weights do not belong together, or the weights are incomplete. Fetch "
    "the model again as a whole, or correct config.json.")


def load_on_meta(model: Any, headers: Mapping[str, TensorHeader]) -> Mapping[str, Any] | None:
    """Load tensors without values as transformers loads weights; returns its loading report.

    Which tensors would be missing is known from this before weights are fetched: names that
    transformers converts, ties or ignores are treated as in the real load.

    Args:
        model: of the architecture, on the meta device.

    Returns:
        None where the architecture cannot be loaded without values; the real load then tells.
    """
    import torch

    dtypes = {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    tensors = {
        name: torch.empty(header.shape, dtype=dtypes.get(header.dtype, torch.uint8), device="meta")
        for name, header in headers.items()}

    def load(named: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
        arguments = {
            "state_dict": dict(named), "device_map": "meta", "dtype": torch.float32,
            "output_loading_info": True, "ignore_mismatched_sizes": True}
        if choice.is_head(model.config):
            return checkpoint.load(type(model), model.config, None, named, arguments)
        found: tuple[Any, Mapping[str, Any]] = type(model).from_pretrained(
            None, config=model.config, **arguments)
        return found

    try:
        loaded, report = load(tensors)
        if prefixes := compat.mismatched_prefix(loaded, report):
            _, report = load(compat.rename(tensors, *prefixes))
    except Exception:  # an architecture's code, which expects values
        return None
    return report


def check_completeness(
    origin: Origin, model: Any, report: Mapping[str, Any],
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Refuse a model whose weights lack, or have in another shape, what no task replaces.

    Args:
        model: as loaded, may be on the meta device.
        report: of loading it.
        warn: called with what is unusual, but no error.

    Raises:
        ModelError: with the first tensors, and their shapes in the file and by config.json.
    """
    shapes = {str(item[0]): item[1] for item in report["mismatched_keys"] if len(item) > 1}
    lost = missing_weights(model, report)
    head = head_parameters(model)
    wrong = sorted(name for name in lost - head if not is_optional(model, name))
    kept = sorted(head - lost)
    if lost & head and (model.can_generate() or (is_masked_language_model(model) and kept)):
        # A generating model answers with its pretrained head; a part of one is damage.
        wrong = sorted({*wrong, *(lost & head)})
    if wrong:
        raise ModelError(describe(model, wrong, shapes), where=origin.repo, hint=REPAIR)
    if lost & head and is_masked_language_model(model):
        warn(f"{origin.repo} was saved without the head that predicts words: "
             f"{listing(sorted(lost & head), SHOWN)} begin untrained.")
    unused = unused_tensors(model, report)
    if unused:
        warn(f"{origin.repo} has weights that its architecture does not use: {len(unused)} "
             f"tensors, {listing(unused, SHOWN)}. config.json may ask for fewer layers, or other "
             "parts, than the weights have.")


def describe(model: Any, wrong: Collection[str], shapes: Mapping[str, Any]) -> str:
    """Describe missing weights, and those of another shape, for a message."""
    expected = tensors_of(model)
    missing = [f"{name} {tuple(expected[name].shape)}" for name in wrong if name not in shapes]
    other = [f"{name} {tuple(shapes[name])}, by config.json {tuple(expected[name].shape)}"
             for name in wrong if name in shapes]
    count = f"{len(wrong):,} of {len(expected):,} tensors of its architecture '{choice.pretrained_config(model.config).model_type}'"
    parts = [f"{len(missing):,} are missing: {listing(missing, SHOWN)}"] if missing else []
    parts += [f"{len(other):,} have another shape: {'; '.join(other[:SHOWN])}"
              + (f" and {len(other) - SHOWN:,} more" if len(other) > SHOWN else "")] if other else []
    return f"its weights lack {count}, which would begin at random ({'; '.join(parts)})."


def tensors_of(model: Module) -> dict[str, Any]:
    """Return the tensors that come from a checkpoint: parameters, and statistics of batch norms."""
    return dict(model.named_parameters()) | {
        name: buffer for name, buffer in model.named_buffers()
        if name.rpartition(".")[2] in STATISTICS}


def missing_weights(model: Module, report: Mapping[str, Any]) -> frozenset[str]:
    """Return the tensors that the checkpoint lacks, or has in another shape."""
    names = {str(name) for name in report["missing_keys"]}
    names |= {
        str(item[0] if isinstance(item, tuple) else item)
        for item in report["mismatched_keys"]
    }
    return frozenset(names & tensors_of(model).keys())


def is_optional(model: Any, name: str) -> bool:
    """Tell whether a tensor of the backbone may be missing.

    Poolers, vectors of masked inputs, and tables of positions that are computed, not learned.
    """
    parts = name.split(".")
    return POOLER in parts or parts[-1] in MASKS or (
        parts[-1] not in STATISTICS and not model.get_parameter(name).requires_grad)


def head_parameters(model: Any) -> frozenset[str]:
    """Return the names of a head's tensors: those that the model without a head does not have."""
    names = tensors_of(model)
    prefix = f"{model.base_model_prefix}."
    if any(name.startswith(prefix) for name in names):
        return frozenset(name for name in names if not name.startswith(prefix))
    backbone = compat.backbone_on_meta(model.config)
    if backbone is not None:
        return frozenset(names.keys() - tensors_of(backbone).keys())
    largest = max(model.children(), key=lambda part: sum(p.numel() for p in part.parameters()))
    inside = {id(parameter) for parameter in largest.parameters()}
    return frozenset(name for name, tensor in names.items() if id(tensor) not in inside)


def is_masked_language_model(model: Any) -> bool:
    """Tell whether a model's pretrained head predicts masked words."""
    return type(model).__name__.endswith("ForMaskedLM")


def unused_tensors(model: Any, report: Mapping[str, Any]) -> list[str]:
    """Return the tensors of the checkpoint that belong into the backbone and have no place there.

    Those of other heads and other towers are not of the backbone; buffers of older versions of a
    library are no weights.
    """
    modules = dict(model.named_modules())
    prefix = f"{model.base_model_prefix}."
    has_prefix = any(name.startswith(prefix) for name in modules)
    found = []
    for key in sorted(map(str, report["unexpected_keys"])):
        name = prefix + key if has_prefix and not key.startswith(prefix) else key
        parent = name.rpartition(".")[0]
        near = parent
        while near and near not in modules:
            near = near.rpartition(".")[0]
        inside = near.removeprefix(prefix) if has_prefix else near
        is_leaf = near == parent and near and not list(modules[near].children()) \
            and list(modules[near].parameters(recurse=False))
        is_head = any(part == POOLER or part.endswith("head") for part in name.split("."))
        if inside and near != prefix[:-1] and not is_head and (near != parent or is_leaf):
            found.append(key)
    return found


def check_finite(repo: str, model: Module) -> None:
    """Refuse weights that are not numbers: they would make the loss NaN, or a part of it later.

    Raises:
        ModelError: with the first tensor, and its rows.
    """
    import torch

    for name, tensor in tensors_of(model).items():
        # A sum is finite only if all its terms are; it needs no memory, and 0.1 ns a number.
        if tensor.dtype.is_floating_point and tensor.itemsize > 1 and not tensor.sum().isfinite():
            wrong = ~torch.isfinite(tensor)
            if not wrong.any():
                continue  # finite numbers whose sum is not
            rows = wrong.reshape(len(wrong) if wrong.ndim else 1, -1).any(1).nonzero().flatten()
            raise ModelError(
                f"its weights hold numbers that are NaN or infinite: {name} "
                f"{tuple(tensor.shape)}, {int(wrong.sum()):,} of {tensor.numel():,}, in rows "
                f"{listing(rows.tolist(), SHOWN)} (from 0).",
                where=repo, hint="The checkpoint is damaged; no learning rate mends it. "
                "Fetch the model again, or take another.")
