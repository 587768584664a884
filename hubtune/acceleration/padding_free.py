"""Blocks that compute no padding: between a model's blocks its examples stand end to end in one row, (1, tokens, ...).

What stands before and after the blocks (embeddings, pooling, heads) sees examples as ever, (examples, length, ...), so any task
and head will do. Within the blocks each token is computed by itself but for attention, which is told where each example ends:
by torch's kernel for rows of any length where there is one, else with the padding put back for as long as it takes.
Used only where loss and gradient turn out to be those of padded batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import AttentionInterface

from hubtune.devices import device, processes, sharding
from hubtune.evaluation import equivalence, inference

if TYPE_CHECKING:
    from hubtune.training.context import TrainingContext

WORTH = 0.15
"""The share of a step's cost that has to be saved. Joining examples and taking them apart costs something: MiniLM on a CPU, short
texts in random order, where 0.3 would be saved: 0.8 of the time; bucketed, 0.08: 1.0 of it."""
COST = 0.1
"""What a place of padding costs beside a token, where blocks compute none: embeddings, heads and some attention still do."""
TRIED = 4
"""Examples that loss and gradient are compared on, from the shortest to the longest."""
HALVES = ("bf16", "fp16")
CLOSE, CLOSE_IN_HALVES = 1e-4, 0.1
"""How far a gradient may be from that of padded batches, relative to it: in the format of the weights, and in half precision."""
UNKNOWN_TO_KERNEL = ("position_bias", "softcap", "s_aux")
"""What a model may ask of its attention that the kernel has not."""


class Refused(Exception):
    """Why a model's blocks cannot do without padding."""


class Segments:
    """Where the tokens of padded examples are. mask: (examples, length), 0 for padding."""

    def __init__(self, mask: Tensor) -> None:
        self.examples, self.length = mask.shape
        self.places = mask.flatten().nonzero().flatten()
        self.tokens = len(self.places)
        ends = mask.ne(0).sum(1).cumsum(0)
        self.starts = torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)

    def joined(self, value: Any) -> Any:
        """Tensors of (examples or 1, length, ...), in whatever nesting, as (1, tokens, ...); others as they are."""
        if isinstance(value, Tensor):
            if value.ndim < 2 or value.shape[1] != self.length or value.shape[0] not in (1, self.examples):
                return value
            return value.expand(self.examples, *value.shape[1:]).flatten(0, 1)[self.places][None]
        if isinstance(value, tuple | list):
            return type(value)(self.joined(item) for item in value)
        return value

    def apart(self, value: Tensor) -> Tensor:
        """(1, tokens, ...) as (examples, length, ...), padding 0."""
        wide = value.new_zeros(self.examples * self.length, *value.shape[2:])
        return wide.index_copy(0, self.places, value[0]).view(self.examples, self.length, *value.shape[2:])


class Padded:
    """A model that computes its padding, and why."""

    used = False

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def computing(self) -> AbstractContextManager[None]:
        """For one step, its backward pass too: activations may be computed again there."""
        return nullcontext()

    def release(self) -> None:
        """The model as it was."""


class Blocks(Padded):
    """The blocks of a model, without padding while they are `computing`; as ever otherwise."""

    used = True

    def __init__(self, model: Module) -> None:
        super().__init__("loss and gradient are those of padded batches")
        self.stack = sharding.blocks(model)
        if not self.stack:
            raise Refused("no stack of blocks was found in it")
        self.on = False
        self.now: Segments | None = None
        self.calls = self.joined = 0
        self.plain: Callable[..., Any] = AttentionInterface()["sdpa"]
        self.hooks = [model.register_forward_pre_hook(self.called, with_kwargs=True)]
        for block in self.stack:
            self.hooks.append(block.register_forward_pre_hook(self.enter, with_kwargs=True))
            self.hooks.append(block.register_forward_hook(self.leave))

    def release(self) -> None:
        for hook in self.hooks:
            hook.remove()

    @contextmanager
    def computing(self) -> Iterator[None]:
        self.on, self.calls, self.joined = True, 0, 0
        AttentionInterface.register("sdpa", self.attention)
        try:
            yield
        finally:
            AttentionInterface.register("sdpa", self.plain)
            self.on, self.now = False, None

    def called(self, model: Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Before the model: its mask tells where tokens are."""
        if not self.on:
            return
        mask = named.get("attention_mask")
        self.calls += 1
        self.now = None
        if isinstance(mask, Tensor) and mask.ndim > 1:  # choices have one dimension more, which models take away
            mask = mask.reshape(-1, mask.shape[-1])
            self.now = None if bool(mask.all()) else Segments(mask)

    def enter(self, block: Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before a block: examples end to end, in all that it is given."""
        if self.now is None or not self.fits(given, named):
            return None
        self.joined += 1
        return tuple(map(self.of, given)), {name: self.of(value) for name, value in named.items()}

    def fits(self, given: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
        """Whether what a block is given first, its hidden states, has the shape of the mask."""
        first = given[0] if given else named.get("hidden_states")
        return self.now is not None and isinstance(first, Tensor) and first.shape[:2] == (self.now.examples, self.now.length)

    def of(self, value: Any) -> Any:
        """Joined; what the block before has just taken apart, as it was."""
        known = getattr(value, "joined_as", None)
        if known is not None and known[0] is self.now:
            return known[1]
        return self.now.joined(value) if self.now else value

    def leave(self, block: Module, given: tuple[Any, ...], output: Any) -> Any:
        """After a block: examples apart again, in all that it gives."""
        now = self.now
        if now is None:
            return None

        def apart(value: Any) -> Any:
            if not isinstance(value, Tensor) or value.ndim < 3 or value.shape[:2] != (1, now.tokens):
                return value
            wide: Any = now.apart(value)
            wide.joined_as = now, value
            return wide

        return type(output)(map(apart, output)) if type(output) in (tuple, list) else apart(output)

    def attention(self, module: Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **more: Any) -> tuple[Tensor, Any]:
        """In the place of transformers' function of this signature. query: (1, heads, tokens, width); returns (1, tokens, heads, width)."""
        now = self.now
        if now is None or query.shape[0] != 1 or query.shape[2] != now.tokens:
            return self.plain(module, query, key, value, mask, **more)  # type: ignore[no-any-return]
        if key.shape[2] != now.tokens:
            raise Refused("its attention looks beyond its own examples")
        if kernel_knows(query, key, value, more):
            return by_kernel(module, query, key, value, now, more), None
        query, key, value = (now.apart(part.transpose(1, 2)).transpose(1, 2) for part in (query, key, value))
        output, weights = self.plain(module, query, key, value, mask, **more)
        return now.joined(output), weights


def kernel_knows(query: Tensor, key: Tensor, value: Tensor, asked: Mapping[str, Any]) -> bool:
    """Whether `torch.nn.attention.varlen` computes this: on a GPU, in half precision, without dropout."""
    half = torch.is_autocast_enabled("cuda") or query.dtype in (torch.float16, torch.bfloat16)
    return (query.is_cuda and half and not asked.get("dropout") and query.shape[-1] == key.shape[-1] == value.shape[-1] <= 256
            and query.shape[-1] % 8 == 0 and all(asked.get(name) is None for name in UNKNOWN_TO_KERNEL))


def by_kernel(module: Module, query: Tensor, key: Tensor, value: Tensor, now: Segments, asked: Mapping[str, Any]) -> Tensor:
    """Attention within examples end to end. Windows as transformers says them: so many keys, the own one among them."""
    from torch.nn.attention.varlen import varlen_attn

    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    causal = asked.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    before = asked["sliding_window"] - 1 if asked.get("sliding_window") else -1
    one, two, three = (part[0].transpose(0, 1).to(dtype).contiguous() for part in (query, key, value))
    output = varlen_attn(
        one, two, three, now.starts, now.starts, now.length, now.length, scale=asked.get("scaling"),
        window_size=(before, 0 if causal else before), enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(output, Tensor)  # nothing beside it was asked for
    return output[None]


def find(context: TrainingContext, model: Module) -> Padded:
    """The model's blocks without padding, or why not; the same in every process."""
    made: Padded
    try:
        made = tried(context, model)
    except Refused as error:
        made = Padded(str(error))
    (refused,) = processes.any_of(not made.used)
    if refused and isinstance(made, Blocks):
        made.release()
        made = Padded("another process could not do without")
    return made


def tried(context: TrainingContext, model: Module) -> Blocks:
    """The model's blocks, if without padding they give loss and gradient as with it; else `Refused` says why."""
    blocks = Blocks(model)
    try:
        try:
            refuse(blocks, *both(blocks, context, model), CLOSE)
            if context.compute.precision in HALVES:
                with device.autocast(context.compute):
                    refuse(blocks, *both(blocks, context, model), CLOSE_IN_HALVES)
        except Refused:
            raise
        except Exception as error:  # a model may do anything with what its blocks are given
            raise Refused(f"it failed with {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    except Refused:
        blocks.release()
        raise
    return blocks


def both(blocks: Blocks, context: TrainingContext, model: Module) -> tuple[list[Tensor], list[Tensor]]:
    """What some examples give as padded batch, and without padding between the blocks: the loss, and its gradient unless
    weights are shared out."""
    items = equivalence.spread(context.train, TRIED)

    def found() -> list[Tensor]:
        if not context.shard:
            return equivalence.learnt(context.task, context.base, context.train, model, items)
        with inference.evaluating(model):
            return equivalence.losses(context.task, context.base, context.train, model, items)

    wide = found()
    with blocks.computing():
        return wide, found()


def refuse(blocks: Blocks, wide: list[Tensor], narrow: list[Tensor], close: float) -> None:
    """Refuse blocks that were not without padding, or that then gave something else."""
    if blocks.calls != 1:
        raise Refused(f"a step calls it {blocks.calls} times, and which call activations are computed again for cannot be told")
    if not blocks.joined:
        raise Refused("its blocks are given something else than one place for each token")
    for name, ours, theirs in (("loss", narrow[:1], wide[:1]), ("gradient", narrow[1:], wide[1:])):
        if not (off := equivalence.off(ours, theirs)) <= close:
            raise Refused(f"its {name} would be off by {off:.2g} of it")
