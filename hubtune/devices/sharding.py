"""Sharding (FSDP2): each process holds a shard of every weight, and gathers blocks to compute.

In place: the module keeps its identity and names, and its parameters become DTensors. Code that
reads weights calls `full_tensor` in all processes at once; code that writes them calls
`distribute_like`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList

from hubtune.contract import StepStrategy, Strategy

if TYPE_CHECKING:
    from torch.optim import Optimizer

BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d,
               torch.nn.SyncBatchNorm)


def strategy_refusal(strategy: Strategy[Any]) -> str | None:
    """Return why a strategy cannot train sharded weights; None if it can."""
    if isinstance(strategy, StepStrategy):
        return (f"the strategy '{strategy.name}' reads the weights between steps, "
                "and each process would see only its shard")
    if strategy.from_pretrained_kwargs():
        return f"the strategy '{strategy.name}' loads weights in a format that cannot be sharded"
    return None


def model_refusal(model: Module, still: Collection[Module] = ()) -> str | None:
    """Return why a model's weights cannot be sharded; None if they can.

    Args:
        still: batch norms whose running statistics are not updated.
    """
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            return f"the weight {name} is a scalar, which cannot be sharded"
        if not parameter.is_floating_point():
            dtype = str(parameter.dtype).removeprefix("torch.")
            return f"the weight {name} has the format {dtype}, which cannot be sharded"
    for name, part in model.named_modules():
        if not isinstance(part, BATCH_NORMS) or not part.track_running_stats:
            continue
        if not any(part is other for other in still):
            return f"the running statistics of {name} would differ between processes"
    return None


def shard(model: Module, device: str) -> None:
    """Shard the weights, by block and then the rest. Processes must hold equal ones.

    Weights, also the outermost ones, are sharded again after every forward and backward pass, so
    that code between passes always finds shards.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    for block in find_blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def find_blocks(model: Module) -> list[Module]:
    """Find the blocks that a model stacks, by structure.

    These are the entries of its outermost lists of composite modules, provided that none of them
    shares a weight with other parts.
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))

    def is_block(part: Module) -> bool:
        own = Counter(id(p) for _, p in part.named_parameters(remove_duplicate=False))
        composite = any(True
                        for _ in part.children()) and not isinstance(part, ModuleList | ModuleDict)
        return composite and bool(own) and all(uses[key] == count for key, count in own.items())

    def inside(part: Module) -> Iterator[Module]:
        for child in part.children():
            entries = list(child) if isinstance(child, ModuleList) else []
            if len(entries) > 1 and all(map(is_block, entries)):
                yield from entries
            else:
                yield from inside(child)

    return list(inside(model))


def is_sharded(model: Module) -> bool:
    """Tell whether this process holds only shards of the weights."""
    return any(is_dtensor(parameter) for parameter in model.parameters())


def is_dtensor(tensor: Tensor) -> bool:
    """Tell whether a tensor is a DTensor, without importing their module."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor, collectively in all processes; return any other tensor unchanged."""
    whole: Any = tensor
    found: Tensor = whole.full_tensor() if is_dtensor(tensor) else tensor
    return found


def distribute_like(value: Tensor, own: Tensor) -> Tensor:
    """Return this process's shard of a full value, if `own` is sharded, else the value."""
    if not is_dtensor(own):
        return value
    from torch.distributed.tensor import distribute_tensor

    given: Any = own
    return distribute_tensor(
        value.to(given.device), given.device_mesh, given.placements, src_data_rank=None)


def join_gather(groups: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Take part in gathering tensors, in this order, while the first process copies them."""
    for tensors in groups.values():
        for tensor in tensors.values():
            full_tensor(tensor.detach())


def has_foreign_parameters(model: Module, optimizer: Optimizer) -> bool:
    """Tell whether an optimizer has parameters that are not, or no longer, the model's."""
    own = {id(parameter) for parameter in model.parameters()}
    return any(id(parameter) not in own for parameter in optimizer_parameters(optimizer))


def optimizer_parameters(optimizer: Optimizer) -> Iterable[Tensor]:
    """Yield all parameters of an optimizer, in the order of its state."""
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
