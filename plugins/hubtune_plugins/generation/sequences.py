"""Lists of token ids as tensors, and as the beginning of what a decoder writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hubtune import Base, Batch, Example
from hubtune_plugins.writing.likelihood import IGNORED

if TYPE_CHECKING:
    pass


LEAST = 128
"""Tokens that may be written for a row where neither the user nor the targets ask for more."""


def longest_text(wanted: int | None, seen: int) -> int:
    """Return how many tokens may be written for a row. wanted: by the user. seen: of the longest target that was encoded."""
    return wanted or max(LEAST, seen)


def limit_of(model: Any, wanted: int | None) -> int:
    """Return how many tokens a model may write for a row: what was set when it was tuned, unless the user wants another number."""
    return wanted or getattr(model.generation_config, "max_new_tokens", None) or LEAST


def padded(base: Base, lists: Any, fill: Any = None, left: Any = False) -> tuple[Any, Any]:
    """Lists of ids as (lists, longest) and their attention mask; `fill`: by default the pad token."""
    import torch

    longest = max(map(len, lists))
    fill = (base.processor.pad_token_id or 0) if fill is None else fill
    rows, mask = [], []
    for ids in lists:
        space = longest - len(ids)
        rows.append([fill] * space + list(ids) if left else [*ids, *[fill] * space])
        mask.append([0] * space + [1] * len(ids) if left else [1] * len(ids) + [0] * space)
    return torch.tensor(rows), torch.tensor(mask)


def collated(base: Base, examples: Sequence[Example]) -> tuple[Any, Any]:
    """Examples as padded inputs and, where all have `labels`, as targets: these, and where each last answer `starts`."""
    import torch

    ids, mask = padded(base, [example["input_ids"] for example in examples])
    targets = None
    if all("labels" in example for example in examples):
        labels, _ = padded(base, [example["labels"] for example in examples], IGNORED)
        targets = {"labels": labels, "starts": torch.tensor([example["start"] for example in examples])}
    return {"input_ids": ids, "attention_mask": mask}, targets


def ended(base: Base, ids: Any) -> Any:
    """The ids of a target with the tokenizer's end token, in the place of the last one where there is no room."""
    ids, end = list(ids), base.processor.eos_token_id
    if end is None or end in ids[-2:]:  # some put the language last
        return ids
    return [*ids[: len(ids) - (len(ids) == base.max_length)], end]


def taught(base: Base, examples: Sequence[Example], start: Any) -> tuple[Any, Any]:
    """Return what a decoder reads, (examples, longest), and where all have `labels` the targets: it reads these one place on,
    after `start`."""
    import torch

    first = torch.full((len(examples), 1), start)
    if not all("labels" in example for example in examples):
        return first, None
    labels, _ = padded(base, [example["labels"] for example in examples], IGNORED)
    before, _ = padded(base, [example["labels"] for example in examples])
    return torch.cat([first, before[:, :-1]], 1), {"labels": labels}


def prompts_of(batch: Batch) -> list[Any]:
    """The ids of each example up to its answer, as lists."""
    lengths = batch.inputs["attention_mask"].sum(1) if batch.targets is None else batch.targets["starts"]
    return [row[:length] for row, length in zip(batch.inputs["input_ids"].tolist(), lengths.tolist(), strict=True)]


def continued(
    model: Any, base: Base, prompts: Any, ends: Any, most: Any, temperature: float = 0.0
) -> Any:
    """The texts that a decoder writes after lists of ids: `most` tokens each at most, greedy at temperature 0.

    Prompts are padded on the left, with positions counted from the first real token. Only prompts of one length meet
    in models that read the padding nevertheless: such as those that take no positions, or that keep a state (Mamba).
    """
    import torch

    room = most if base.max_length is None else min(most, max(1, base.max_length // 2))
    if base.max_length is not None:
        prompts = [ids[-(base.max_length - room):] for ids in prompts]
    apart = reads_padding(model, base, prompts)
    groups: dict[Any, Any] = {}
    for index, ids in enumerate(prompts):
        groups.setdefault(len(ids) if apart else 0, []).append(index)
    texts = [""] * len(prompts)
    device = next(model.parameters()).device
    sampling = {"temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature > 0 else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for items in groups.values():
            ids, mask = (part.to(device) for part in padded(base, [prompts[i] for i in items], left=True))
            written = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=room, do_sample=temperature > 0, num_beams=1,
                eos_token_id=ends or None, pad_token_id=base.processor.pad_token_id, **sampling,
            )
            for index, found in zip(items, written[:, ids.shape[1]:].tolist(), strict=True):
                texts[index] = base.processor.decode(found, skip_special_tokens=True).strip()
    return texts


def reads_padding(model: Any, base: Base, prompts: Any) -> bool:
    """Return whether what follows a prompt changes with padding on its left: the shortest, one of middle length and the longest
    are asked for two tokens, alone and beside each other."""
    import torch

    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    asked = [prompts[order[place]] for place in sorted({0, len(order) // 2, len(order) - 1})]
    if len(asked[0]) == len(asked[-1]):
        return False
    together = first_scores(model, base, asked)
    alone = torch.cat([first_scores(model, base, [ids]) for ids in asked[:-1]])
    gap = (together[:-1] - alone).abs().max()
    return not bool(gap <= 1e-4 * alone.abs().max().clamp(min=1.0))


def first_scores(model: Any, base: Base, prompts: Any) -> Any:
    """Return what the model says of the two tokens after each prompt, (prompts, 2 * vocabulary), prompts being padded on the left.
    The second is read from what the model keeps, which some choose from in another way."""
    import torch

    ids, mask = (part.to(next(model.parameters()).device) for part in padded(base, prompts, left=True))
    made = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=2, do_sample=False, num_beams=1, eos_token_id=[],
                          pad_token_id=base.processor.pad_token_id, output_logits=True, return_dict_in_generate=True)
    return torch.nan_to_num(torch.cat(made.logits, 1).float(), nan=float("inf"))
