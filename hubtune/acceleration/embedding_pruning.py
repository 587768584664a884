"""Embedding pruning: while steps are computed, embeddings hold the rows that the training texts use.

Exact: a row that no text uses has a gradient of zero, so AdamW only decays it, which one factor says for all of them.
Validation, checkpoints and the result see the whole table (`full_weights`). Switch: `train.kernels`.
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
"""Weights of an embedding below which nothing is gained."""
IDS = "input_ids"
"""How keys of token ids end."""
BLOCK = 1 << 20
"""Numbers that are looked through at a time."""
SPARED = 0.5
"""The share of the rows that must be out of use."""


class UnknownToken(Exception):
    """A token that no training text has: the step has to be computed again with the whole table."""


class PrunedEmbedding:
    """One embedding, small while a step is computed. The parameter stays the same object, for the optimizer's sake."""

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
        """Token ids as rows of the small table."""
        if not self.is_small:
            return arguments
        rows = self.lookup[arguments[0]]
        if bool((rows < 0).any()):
            raise UnknownToken
        return (rows, *arguments[1:])

    def shrink(self) -> None:
        """Keep the used rows of the whole table in the parameter."""
        weight = self.embedding.weight
        weight.data = weight.data[self.ids]
        if self.padding is not None:
            place = int(self.lookup[self.padding])
            self.embedding.padding_idx = place if place >= 0 else None
        self.is_small = True

    def expand(self) -> None:
        """Put the whole table in the parameter: the trained rows, and the others with their decay."""
        if not self.is_small:
            return
        whole = self.table if self.kept == 1.0 else self.table * self.kept
        whole[self.ids] = self.embedding.weight.data
        self.embedding.weight.data = whole
        self.embedding.padding_idx = self.padding
        self.is_small = False

    def remove(self) -> None:
        """The embedding as it was found, with its trained rows."""
        self.expand()
        self.embedding.weight.grad = None
        self.hook.remove()

    def decay(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Decay the other rows as AdamW's step would (Loshchilov and Hutter, arXiv:1711.05101)."""
        for group in groups:
            if any(parameter is self.embedding.weight for parameter in group["params"]):
                self.kept *= 1.0 - group["lr"] * group.get("weight_decay", 0.0)


class EmbeddingPruning(Accelerator):
    """The embeddings of a model that are small while it is trained; none where it does not apply."""

    def __init__(self, decision: Decision, tables: Iterable[PrunedEmbedding] = ()) -> None:
        super().__init__("embedding_pruning", decision)
        self.tables = list(tables)

    @contextlib.contextmanager
    def full_weights(self) -> Iterator[None]:
        """Every table as a whole, for a while."""
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
        """Whether a token came up that the training texts do not have; then every table is whole from now on."""
        if not isinstance(error, UnknownToken):
            return False
        self.release(optimizer)
        return True

    def release(self, optimizer: Any = None) -> None:
        """Every table as a whole from now on, and the optimizer's state of its rows."""
        for table in self.tables:
            table.remove()
        if optimizer:
            widen(optimizer, [table.ids for table in self.tables])
        self.tables = []

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The rows of the small tables, without which the optimizer's state is not known, and the decay of the others."""
        return ({str(number): table.ids for number, table in enumerate(self.tables)},
                {"used": self.decision.applies, "kept": [table.kept for table in self.tables]})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore from `state`; tables are whole where they had been released, or are whole in this process."""
        kept = state.get("kept", [])
        if len(kept) != len(self.tables):
            self.release()
            return
        for table, value in zip(self.tables, kept, strict=True):
            table.kept = value

    def adapt_optimizer(self, optimizer: Any, tensors: Mapping[str, Tensor]) -> None:
        if not self.tables:
            widen(optimizer, tensors.values())


def widen(optimizer: Any, ids: Iterable[Tensor]) -> None:
    """Make what the optimizer knows of a small table's rows the state of the whole table: of the other rows it knows nothing."""
    by_length = {len(rows): rows for rows in ids}
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim == weight.ndim > 0 and value.shape != weight.shape:
                table = torch.zeros(weight.shape, dtype=value.dtype, device=value.device)
                table.index_copy_(0, by_length[len(value)].to(value.device), value)
                state[name] = sharding.distribute_like(table, weight)


def find(context: AccelerationContext) -> EmbeddingPruning:
    """Prune trained input embeddings, of which the training examples use less than half and whose weights nothing else uses."""
    reason = against(context)
    if reason is not None:
        return EmbeddingPruning(Decision(False, reason))
    names: dict[int, list[str]] = {}
    for name, parameter in context.model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    candidates = [part for part in input_embeddings(context.model) if is_plain(part) and part.weight.numel() >= SMALLEST
                  and len(names[id(part.weight)]) == 1 and names[id(part.weight)][0] in context.trainable]
    if not candidates:
        return EmbeddingPruning(Decision(False, "no large embedding is trained that is used in one place alone"))
    ids = torch.tensor(sorted({*special_ids(context.base), *ids_in(context.train.examples)}), dtype=torch.int64)
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


def against(context: AccelerationContext) -> str | None:
    """A reason from settings alone not to prune; None where there is none."""
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
    """Whether an embedding on the CPU only looks rows up."""
    return (embedding.weight.device.type == "cpu" and embedding.max_norm is None
            and not embedding.scale_grad_by_freq and not embedding.sparse)


def has_same_loss(pruning: EmbeddingPruning, context: AccelerationContext) -> bool:
    """Whether small tables give the loss of whole ones: not so where a model uses the weights elsewhere, too."""
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
    """Tokens that a model or a tokenizer puts in by itself."""
    tokenizer = getattr(base.processor, "tokenizer", base.processor)
    said = {name: value for name, value in base.config.to_dict().items() if name.endswith("token_id")}
    return {value for value in [*said.values(), *getattr(tokenizer, "all_special_ids", ())] if isinstance(value, int)}


def input_embeddings(model: Module) -> list[Embedding]:
    """The embeddings of tokens, of every transformers model inside, each once."""
    found: dict[int, Embedding] = {}
    for part in model.modules():
        ask = getattr(part, "get_input_embeddings", None)
        with contextlib.suppress(NotImplementedError, AttributeError):
            embedding = ask() if ask else None
            if isinstance(embedding, Embedding):
                found[id(embedding)] = embedding
    return list(found.values())


def ids_in(value: Any, inside: bool = False) -> set[int]:
    """Every number under a key `...input_ids`, however deep."""
    if isinstance(value, Examples | MergedExamples):
        under = [(any(name.endswith(IDS) for name in names), found) for names, found in value.flat_columns()]
        return set().union(*(ids_in(found, inner) for inner, found in under))
    if isinstance(value, np.ndarray):
        blocks = range(0, len(value) if inside and value.dtype.kind in "iu" else 0, BLOCK)
        return set().union(*(np.unique(value[start : start + BLOCK]).tolist() for start in blocks))
    if isinstance(value, Mapping):
        return set().union(*(ids_in(item, inside or str(key).endswith(IDS)) for key, item in value.items()))
    if isinstance(value, Tensor):
        return set(value.flatten().tolist()) if inside else set()
    if isinstance(value, list | tuple):
        if inside and all(isinstance(item, int) for item in value):
            return set(value)
        return set().union(*(ids_in(item, inside) for item in value))
    return {value} if inside and isinstance(value, int) else set()
