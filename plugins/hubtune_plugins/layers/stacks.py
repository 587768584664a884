"""Of which blocks a model is built, told from the structure, not from names: any architecture will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubtune_plugins.layers.learning import owned

if TYPE_CHECKING:
    from torch.nn import Module


def body(model: Module, newly_initialized: frozenset[str]) -> list[Any]:
    """The blocks by full name, without those whose parameters are all fresh: what stands in the head is no block."""
    return [name for name in blocks(model) if not newly_initialized.issuperset(owned(model, name))]


def blocks(model: Module) -> Any:
    """The blocks by full name, from the inputs up: an encoder's before its decoder's, a pyramid's stage by stage."""
    found = stacked(model, "", False, residual)
    if found:
        return found
    bare = stacked(model, "", False, weighty)  # norms stand beside the blocks, as in XLM: part by part, layer by layer
    return sorted(bare, key=lambda name: int(name.rpartition(".")[2]))


def stacked(module: Module, path: Any, nested: Any, counts: Any) -> Any:
    """The blocks in a module, of those that `counts` takes for one.

    A block that is itself little more than a stack of blocks, such as a stage of Swin, gives way to them.
    """
    from torch.nn import ModuleList, Sequential

    kinds = {type(child) for child in module.children()}
    stack = isinstance(module, ModuleList | Sequential) and (
        len(kinds) == 1 or (isinstance(module, ModuleList) and not nested))  # T5's blocks are lists of unlike parts
    found = []
    for name, child in module.named_children():
        full = f"{path}.{name}" if path else name
        inner = stacked(child, full, nested or stack, counts)
        most = sum(weight(child.get_submodule(block[len(full) + 1 :])) for block in inner) > 0.5 * weight(child)
        if not stack or isinstance(child, ModuleList | Sequential) or (inner and most):
            found += inner
        elif counts(child):
            found.append(full)
    return found


def weight(module: Module) -> Any:
    """Return how many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


def weighty(module: Module) -> bool:
    """Return whether a module holds a matrix."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def residual(module: Module) -> Any:
    """Return whether a module holds matrices and a normalisation, as a residual block does and a single expert does not."""
    matrices = sum(parameter.ndim > 1 for parameter in module.parameters())
    return matrices > 1 and any(map(is_norm, module.modules()))


def is_norm(module: Module) -> bool:
    """Return whether a module normalises: LayerNorm, RMSNorm, BatchNorm2d, T5LayerNorm and their kin."""
    return "norm" in type(module).__name__.lower()
