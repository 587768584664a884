"""Only the embedding rows that training meets are trained as a table: the rest of a vocabulary costs nothing in a step.

Exact. A row that no training text uses has a gradient of zero in every step, so AdamW does nothing to it but decay it,
which one number says for all of them. What looks at the weights (validation, checkpoints, the result) sees the whole table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Embedding, Module

from hubtune.contract import Base, Strategy, Task
from hubtune.data.dataset import EncodedDataset, Examples, MergedExamples
from hubtune.devices import sharding
from hubtune.evaluation import equivalence, inference

SMALLEST = 2_000_000
"""Weights of an embedding below which nothing is gained."""
IDS = "input_ids"
"""How keys of token ids end."""
BLOCK = 1 << 20
"""Numbers that are looked through at a time."""
SPARED = 0.5
"""The share of the rows that must be out of use."""


class Unmet(Exception):
    """A token that the training texts were said not to have: the step has to be computed anew with the whole table."""


class Vocabulary:
    """One embedding, small while a step is computed. The parameter stays the same object, for the optimizer's sake."""

    def __init__(self, embedding: Embedding, ids: Tensor) -> None:
        self.embedding, self.ids = embedding, ids
        self.table = embedding.weight.data
        self.padding = embedding.padding_idx
        self.kept = 1.0
        self.small = False
        self.lookup = torch.full((len(self.table),), -1)
        self.lookup[ids] = torch.arange(len(ids))
        embedding.register_forward_pre_hook(self.translate)
        self.shrink()

    def translate(self, module: Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Token ids as rows of the small table."""
        if not self.small:
            return arguments
        rows = self.lookup[arguments[0]]
        if bool((rows < 0).any()):
            raise Unmet
        return (rows, *arguments[1:])

    def shrink(self) -> None:
        """From the whole table, which is where the small one's rows come from."""
        weight = self.embedding.weight
        weight.data = weight.data[self.ids]
        if self.padding is not None:
            place = int(self.lookup[self.padding])
            self.embedding.padding_idx = place if place >= 0 else None
        self.small = True

    def expand(self) -> None:
        """To the whole table, with what was learnt and with the decay of the rows that nothing met."""
        whole = self.table if self.kept == 1.0 else self.table * self.kept
        whole[self.ids] = self.embedding.weight.data
        self.embedding.weight.data = whole
        self.embedding.padding_idx = self.padding
        self.small = False

    def stepped(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """What AdamW's step would have done to the other rows (Loshchilov and Hutter, arXiv:1711.05101)."""
        for group in groups:
            if any(parameter is self.embedding.weight for parameter in group["params"]):
                self.kept *= 1.0 - group["lr"] * group.get("weight_decay", 0.0)


class Vocabularies:
    """The embeddings of a model that are small while it learns; none of them, as the case may be."""

    def __init__(self, found: Iterable[Vocabulary] = ()) -> None:
        self.found = list(found)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Every table as a whole, for a while."""
        small = [vocabulary for vocabulary in self.found if vocabulary.small]
        for vocabulary in small:
            vocabulary.expand()
        try:
            yield
        finally:
            for vocabulary in small:
                vocabulary.shrink()

    def release(self, optimizer: Any = None) -> None:
        """Every table as a whole from now on, and what the optimizer knows of its rows."""
        for vocabulary in self.found:
            vocabulary.expand()
            vocabulary.embedding.weight.grad = None
        if optimizer:
            widen(optimizer, [vocabulary.ids for vocabulary in self.found])
        self.found = []

    def stepped(self, optimizer: Any) -> None:
        """After every step of the optimizer."""
        for vocabulary in self.found:
            vocabulary.stepped(optimizer.param_groups)

    def state(self) -> list[float]:
        """For checkpoints, beside the weights: the decay of what nothing met."""
        return [vocabulary.kept for vocabulary in self.found]

    def ids(self) -> dict[str, Tensor]:
        """For checkpoints: the rows that the small tables have, without which the optimizer's state says little."""
        return {str(number): vocabulary.ids for number, vocabulary in enumerate(self.found)}

    def restore(self, state: list[float]) -> None:
        """As `state` was; whole where they had been released, or are whole in this process. Before weights and optimizer are put back."""
        if len(state) != len(self.found):
            self.release()
            return
        for vocabulary, kept in zip(self.found, state, strict=True):
            vocabulary.kept = kept


def widen(optimizer: Any, ids: Iterable[Tensor]) -> None:
    """Make what the optimizer knows of a small table's rows the state of the whole table: of the other rows it knows nothing."""
    by_length = {len(rows): rows for rows in ids}
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim == weight.ndim > 0 and value.shape != weight.shape:
                table = torch.zeros(weight.shape, dtype=value.dtype, device=value.device)
                table.index_copy_(0, by_length[len(value)].to(value.device), value)
                state[name] = sharding.like(table, weight)


def find(
    model: Module, strategy: Strategy[Any], task: Task[Any], base: Base, learned: frozenset[str], train: EncodedDataset
) -> Vocabularies:
    """The input embeddings that learn, of which the training examples use less than half, and whose weights nothing else uses."""
    plain = all(getattr(type(strategy), name) is getattr(Strategy, name) for name in ("regularization", "after_step", "optimizer"))
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    candidates = [part for part in inputs_of(model) if plain and is_plain(part) and part.weight.numel() >= SMALLEST
                  and len(names[id(part.weight)]) == 1 and names[id(part.weight)][0] in learned]
    if not candidates:
        return Vocabularies()
    ids = torch.tensor(sorted({*special(base), *ids_in(train.examples)}), dtype=torch.int64)
    found = Vocabularies(Vocabulary(part, ids[(ids >= 0) & (ids < part.num_embeddings)]) for part in candidates
                         if len(ids) < SPARED * part.num_embeddings)
    if found.found and not same_loss(found, model, task, base, train):
        found.release()
    return found


def is_plain(embedding: Embedding) -> bool:
    """Whether an embedding on the CPU only looks rows up."""
    return (embedding.weight.device.type == "cpu" and embedding.max_norm is None
            and not embedding.scale_grad_by_freq and not embedding.sparse)


def same_loss(vocabularies: Vocabularies, model: Module, task: Task[Any], base: Base, train: EncodedDataset) -> bool:
    """Whether small tables give the loss of whole ones: not so where a model uses the weights elsewhere, too."""
    shortest = train.sizes.argsort()[:2].tolist()

    def terms() -> list[float]:
        return [float(term) for term in equivalence.losses(task, base, train, model, shortest)]

    with inference.evaluating(model):
        try:
            small = terms()
        except (Unmet, RuntimeError, ValueError, IndexError):
            return False
        with vocabularies.whole():
            return inference.gap(terms(), small) < 1e-6


def special(base: Base) -> set[int]:
    """Tokens that a model or a tokenizer puts in by itself."""
    tokenizer = getattr(base.processor, "tokenizer", base.processor)
    said = {name: value for name, value in base.config.to_dict().items() if name.endswith("token_id")}
    return {value for value in [*said.values(), *getattr(tokenizer, "all_special_ids", ())] if isinstance(value, int)}


def inputs_of(model: Module) -> list[Embedding]:
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
