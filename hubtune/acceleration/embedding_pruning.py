"""Embedding pruning: during steps, embeddings hold only the rows that occur in the training texts.

Exact: a row that does not occur has a zero gradient, so AdamW only decays it, by one factor for all
of them. Validation, checkpoints and the result use the whole table (`full_weights`). Switch:
`train.kernels`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Embedding, Module

from hubtune.acceleration.interface import AccelerationContext, Accelerator, Decision
from hubtune.contract import Base, OptimizerStrategy, StepStrategy
from hubtune.data.dataset import Examples, MergedExamples
from hubtune.devices import sharding
from hubtune.evaluation import equivalence
from hubtune.evaluation.batches import evaluation_mode

SMALLEST = 2_000_000
"""Number of weights of an embedding below which pruning gains nothing."""
IDS = "input_ids"
"""Suffix of the keys of token ids."""
BLOCK = 1 << 20
"""Number of ids that are searched at a time."""
SPARED = 0.5
"""Minimum share of rows that must be unused."""


class UnknownToken(Exception):
    """A token outside of the training texts: the step must be repeated with the whole table."""


class PrunedEmbedding:
    """An embedding that is small during a step. The parameter object is kept, for the optimizer."""

    def __init__(self, embedding: Embedding, ids: Tensor) -> None:
        self.embedding, self.ids = embedding, ids
        self.table = embedding.weight.data
        self.padding = embedding.padding_idx
        self.kept = 1.0
        self.is_small = False
        self.lookup = torch.full((len(self.table),), -1)
        self.lookup[ids] = torch.arange(len(ids))
        self.hook = embedding.register_forward_pre_hook(self.translate)
        self.shrink()

    def translate(self, module: Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Map token ids to rows of the small table."""
        if not self.is_small:
            return arguments
        rows = self.lookup[arguments[0]]
        if bool((rows < 0).any()):
            raise UnknownToken
        return (rows, *arguments[1:])

    def shrink(self) -> None:
        """Replace the parameter's table by its used rows."""
        weight = self.embedding.weight
        weight.data = weight.data[self.ids]
        if self.padding is not None:
            place = int(self.lookup[self.padding])
            self.embedding.padding_idx = place if place >= 0 else None
        self.is_small = True

    def expand(self) -> None:
        """Restore the whole table: the trained rows, and the others with their decay."""
        if not self.is_small:
            return
        whole = self.table if self.kept == 1.0 else self.table * self.kept
        whole[self.ids] = self.embedding.weight.data
        self.embedding.weight.data = whole
        self.embedding.padding_idx = self.padding
        self.is_small = False

    def remove(self) -> None:
        """Restore the embedding as it was, with its trained rows."""
        self.expand()
        self.embedding.weight.grad = None
        self.hook.remove()

    def decay(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Decay the unused rows as AdamW does (Loshchilov and Hutter, arXiv:1711.05101)."""
        for group in groups:
            if any(parameter is self.embedding.weight for parameter in group["params"]):
                self.kept *= 1.0 - group["lr"] * group.get("weight_decay", 0.0)


class EmbeddingPruning(Accelerator):
    """The pruned embeddings of a model; none where pruning does not apply."""

    def __init__(self, decision: Decision, tables: Iterable[PrunedEmbedding] = ()) -> None:
        super().__init__("embedding_pruning", decision)
        self.tables = list(tables)

    @contextlib.contextmanager
    def full_weights(self) -> Iterator[None]:
        """Expand every table until the block ends."""
        small = [table for table in self.tables if table.is_small]
        for table in small:
            table.expand()
        try:
            yield
        finally:
            for table in small:
                table.shrink()

    def after_step(self, optimizer: Any) -> None:
        for table in self.tables:
            table.decay(optimizer.param_groups)

    def recover(self, error: Exception, optimizer: Any) -> bool:
        """Release all tables after an unknown token; return False for other errors."""
        if not isinstance(error, UnknownToken):
            return False
        self.release(optimizer)
        return True

    def release(self, optimizer: Any = None) -> None:
        """Restore all tables for good, and expand the optimizer's state of their rows."""
        for table in self.tables:
            table.remove()
        if optimizer:
            expand_state(optimizer, [table.ids for table in self.tables])
        self.tables = []

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the row ids that index the optimizer's state of each table, and the decays."""
        return ({str(number): table.ids for number, table in enumerate(self.tables)},
                {"used": self.decision.applies, "kept": [table.kept for table in self.tables]})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore from `state`, releasing tables that were released in the checkpoint or here."""
        kept = state.get("kept", [])
        if len(kept) != len(self.tables):
            self.release()
            return
        for table, value in zip(self.tables, kept, strict=True):
            table.kept = value

    def adapt_optimizer(self, optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
        if not self.tables:
            expand_state(optimizer, tensors.values())


def expand_state(optimizer: Any, ids: Iterable[Tensor]) -> None:
    """Expand the optimizer's state of a small table to the whole one; other rows get zeros."""
    by_length = {len(rows): rows for rows in ids}
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if not isinstance(value, Tensor) or value.shape == weight.shape:
                continue
            if value.ndim == weight.ndim > 0:
                table = torch.zeros(weight.shape, dtype=value.dtype, device=value.device)
                table.index_copy_(0, by_length[len(value)].to(value.device), value)
                state[name] = sharding.distribute_like(table, weight)


def find(context: AccelerationContext) -> EmbeddingPruning:
    """Prune trained input embeddings of which the training examples use less than half.

    Their weights must be used nowhere else.
    """
    reason = refusal(context)
    if reason is not None:
        return EmbeddingPruning(Decision(False, reason))
    names: dict[int, list[str]] = {}
    for name, parameter in context.model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    candidates = [part for part in input_embeddings(context.model)
                  if is_plain(part) and part.weight.numel() >= SMALLEST
                  and len(names[id(part.weight)]) == 1
                  and names[id(part.weight)][0] in context.trainable]
    if not candidates:
        return EmbeddingPruning(
            Decision(False,
                     "no large embedding is trained whose weights are used in one place only"))
    used = {*special_ids(context.base), *find_ids(context.train.examples)}
    ids = torch.tensor(sorted(used), dtype=torch.int64)
    found = EmbeddingPruning(
        Decision(True, "embedding rows that no training text uses have no gradient"),
        [PrunedEmbedding(part, ids[(ids >= 0) & (ids < part.num_embeddings)]) for part in candidates
         if len(ids) < SPARED * part.num_embeddings],
    )
    if not found.tables:
        return EmbeddingPruning(Decision(False, "the training texts use most of the vocabulary"))
    if not has_same_loss(found, context):
        found.release()
        return EmbeddingPruning(Decision(False, "a pruned embedding would give another loss"))
    return found


def refusal(context: AccelerationContext) -> str | None:
    """Return a reason from settings alone not to prune; None without one."""
    strategy, settings = context.strategy, context.settings
    if settings.kernels != "auto":
        return f"train.kernels={settings.kernels}"
    if context.processes > 1 or context.streamed:
        return "there are several processes" if context.processes > 1 else "the data is streamed"
    if settings.optimizer != "adamw" or isinstance(strategy, OptimizerStrategy):
        return "the optimizer is not AdamW"
    if isinstance(strategy, StepStrategy):
        return f"the strategy '{strategy.name}' may look at the weights in every step"
    return None


def is_plain(embedding: Embedding) -> bool:
    """Tell whether an embedding on the CPU is a plain lookup."""
    return (embedding.weight.device.type == "cpu" and embedding.max_norm is None
            and not embedding.scale_grad_by_freq and not embedding.sparse)


def has_same_loss(pruning: EmbeddingPruning, context: AccelerationContext) -> bool:
    """Tell whether small and whole tables give the same loss, i.e.

    the weights are not used elsewhere.
    """
    task, base, train, model = context.task, context.base, context.train, context.model
    shortest = train.sizes.argsort()[:2].tolist()

    def terms() -> list[float]:
        return [float(term) for term in equivalence.mean_losses(task, base, train, model, shortest)]

    with evaluation_mode(model):
        try:
            small = terms()
        except (UnknownToken, RuntimeError, ValueError, IndexError):
            return False
        with pruning.full_weights():
            return equivalence.relative_difference(terms(), small) < 1e-6


def special_ids(base: Base) -> set[int]:
    """Return the token ids that a model or a tokenizer inserts."""
    tokenizer = getattr(base.processor, "tokenizer", base.processor)
    config = base.config.to_dict()
    ids = [value for name, value in config.items() if name.endswith("token_id")]
    ids += getattr(tokenizer, "all_special_ids", ())
    return {value for value in ids if isinstance(value, int)}


def input_embeddings(model: Module) -> list[Embedding]:
    """Return the input embeddings of every transformers model within, each once."""
    found: dict[int, Embedding] = {}
    for part in model.modules():
        ask = getattr(part, "get_input_embeddings", None)
        with contextlib.suppress(NotImplementedError, AttributeError):
            embedding = ask() if ask else None
            if isinstance(embedding, Embedding):
                found[id(embedding)] = embedding
    return list(found.values())


def find_ids(value: Any, inside: bool = False) -> set[int]:
    """Collect all numbers under keys that end in `input_ids`, at any depth."""
    if isinstance(value, Examples | MergedExamples):
        under = [(any(name.endswith(IDS) for name in names), found)
                 for names, found in value.flat_columns()]
        return set().union(*(find_ids(found, inner) for inner, found in under))
    if isinstance(value, np.ndarray):
        blocks = range(0, len(value) if inside and value.dtype.kind in "iu" else 0, BLOCK)
        return set().union(*(np.unique(value[start : start + BLOCK]).tolist() for start in blocks))
    if isinstance(value, Mapping):
        return set().union(*(find_ids(item, inside or str(key).endswith(IDS))
                             for key, item in value.items()))
    if isinstance(value, Tensor):
        return set(value.flatten().tolist()) if inside else set()
    if isinstance(value, list | tuple):
        if inside and all(isinstance(item, int) for item in value):
            return set(value)
        return set().union(*(find_ids(item, inside) for item in value))
    return {value} if inside and isinstance(value, int) else set()
