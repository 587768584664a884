"""Weights that are shared out over the processes (FSDP2): each holds a part of every tensor, and all of a block while it computes it.

In place: the module stays the same object with the same names, and its parameters are DTensors. What looks at weights asks for
them `whole`, in all processes at once; what puts weights back gives each process its part (`like`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList
from torch.nn.modules.batchnorm import _BatchNorm

from hubtune.contract import StepStrategy, Strategy

if TYPE_CHECKING:
    from torch.optim import Optimizer

def unfit_strategy(strategy: Strategy[Any]) -> str | None:
    """Why a strategy cannot train weights that are shared out; None where it can."""
    if isinstance(strategy, StepStrategy):
        return f"the strategy '{strategy.name}' looks at the weights between steps, and each process would see its part of them"
    if strategy.from_pretrained_kwargs():
        return f"the strategy '{strategy.name}' loads weights in a form of its own, which cannot be cut into parts"
    return None


def unfit(model: Module, still: Collection[Module] = ()) -> str | None:
    """Why a model's weights cannot be shared out; None where they can. still: the batch norms whose statistics stay."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 0:
            return f"the weight {name} is a single number, of which there are no parts"
        if not parameter.is_floating_point():
            return f"the weight {name} is in a form of its own ({str(parameter.dtype).removeprefix('torch.')})"
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and part.track_running_stats and not any(part is other for other in still):
            return f"the statistics of {name} follow the data, of which each process sees another part"
    return None


def shard(model: Module, device: str) -> None:
    """Share the weights out: those of each block together, then all others. Processes must hold equal ones.

    Weights are parts again after every forward and backward pass, the outermost ones, too: so that whoever looks at
    the model between passes always finds parts.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device, (torch.distributed.get_world_size(),))
    for block in blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def blocks(model: Module) -> list[Module]:
    """The blocks that a model is a stack of, by its structure: the entries of its outermost lists of modules that are made of
    others. None of them has a weight that is used outside it, too."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))

    def is_block(part: Module) -> bool:
        own = Counter(id(p) for _, p in part.named_parameters(remove_duplicate=False))
        made = any(True for _ in part.children()) and not isinstance(part, ModuleList | ModuleDict)
        return made and bool(own) and all(uses[key] == count for key, count in own.items())

    def inside(part: Module) -> Iterator[Module]:
        for child in part.children():
            entries = list(child) if isinstance(child, ModuleList) else []
            if len(entries) > 1 and all(map(is_block, entries)):
                yield from entries
            else:
                yield from inside(child)

    return list(inside(model))


def is_sharded(model: Module) -> bool:
    """Whether this process holds parts of the weights only."""
    return any(is_part(parameter) for parameter in model.parameters())


def is_part(tensor: Tensor) -> bool:
    """Whether it is this process' part of a tensor: a DTensor, without importing what makes them."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor, which all processes must ask for at once; any other tensor as it is."""
    found: Tensor = tensor.full_tensor() if is_part(tensor) else tensor  # type: ignore[attr-defined]
    return found


def like(value: Tensor, own: Tensor) -> Tensor:
    """A whole value as `own` is held: this process' part of it, or all of it."""
    if not is_part(own):
        return value
    from torch.distributed.tensor import distribute_tensor

    given: Any = own
    return distribute_tensor(value.to(given.device), given.device_mesh, given.placements, src_data_rank=None)


def take_part(groups: Mapping[str, Mapping[str, Tensor]]) -> None:
    """What the other processes do while the first one copies these tensors, in this order."""
    for tensors in groups.values():
        for tensor in tensors.values():
            whole(tensor.detach())


def strangers(model: Module, optimizer: Optimizer) -> bool:
    """Whether an optimizer has parameters that are not, or no longer, the model's."""
    own = {id(parameter) for parameter in model.parameters()}
    return any(id(parameter) not in own for parameter in parameters_of(optimizer))


def parameters_of(optimizer: Optimizer) -> Iterable[Tensor]:
    """All parameters of an optimizer, in the order in which its state counts them."""
    return (parameter for group in optimizer.param_groups for parameter in group["params"])
