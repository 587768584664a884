"""Shared by tasks that read texts: texts to token ids, token ids to padded tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hubtune import Base, DataError, Example, ModelSetup, Task, row_numbers

FED = ("input_ids", "token_type_ids")


class TextTask(Task[Any]):
    """A task that reads texts: its examples hold `input_ids`, its model is told how to pad."""

    contract = 2

    def model_config(self, dataset_info: Mapping[str, Any], base: Base) -> ModelSetup:
        return pad_token(base)

    def num_tokens(self, example: Example) -> int:
        return len(example["input_ids"])


class SeveralTexts(TextTask):
    """A task whose examples hold several tokenized texts, in `texts`, which go through the model together."""

    def num_tokens(self, example: Example) -> int:
        return len(example["texts"]) * self.length(example)

    def length(self, example: Example) -> int:
        return max(len(text["input_ids"]) for text in example["texts"])


def refuse(wrong: Any, rows: Any, split: str, what: Any, hint: str) -> None:
    """Refuse a split for its rows of these indices, if there are any. rows: those of the split, or a column of them."""
    if wrong:
        raise DataError(f"{len(wrong)} {what}: {row_numbers(wrong, rows)} of {split}.", hint=hint)


def tokenise(base: Base, texts: Any, pairs: Any = None) -> list[Any]:
    """One dict of token ids per text (and second text), without padding, cut at `base.max_length` if there is one."""
    encoded = base.processor(
        texts, pairs, add_special_tokens=True, padding=False, truncation=base.max_length is not None,
        max_length=base.max_length, return_attention_mask=False, verbose=False,
    )
    names = [name for name in FED if name in encoded and not (name == "token_type_ids" and one_type(base.config))]
    return [{name: encoded[name][i] for name in names} for i in range(len(texts))]


def one_type(config: Any) -> bool:
    """Return whether the model knows a single token type, so that a pair's second type would be out of range."""
    return getattr(config.get_text_config(), "type_vocab_size", 2) == 1


def pad(base: Base, examples: Sequence[Example]) -> dict[Any, Any]:
    """Padded `input_ids`, `token_type_ids` and `attention_mask`, each (examples, longest), as tensors.

    On the right for all but XLNet, whose answer is read at the end: causal models then see no padding at all.
    """
    import torch

    longest = max(len(example["input_ids"]) for example in examples)
    fill = {"input_ids": base.processor.pad_token_id or 0, "token_type_ids": base.processor.pad_token_type_id}
    left = base.config.model_type == "xlnet"
    columns = {name: [list(e[name]) for e in examples] for name in FED if name in examples[0]}
    columns["attention_mask"] = [[1] * len(example["input_ids"]) for example in examples]

    def filled(values: Any, value: Any) -> Any:
        space = [value] * (longest - len(values))
        return space + values if left else values + space

    return {
        name: torch.tensor([filled(values, fill.get(name, 0)) for values in rows]) for name, rows in columns.items()
    }


def targets_of(examples: Sequence[Example]) -> Any:
    """The `target` of every example as one tensor; None unless all have one."""
    import torch

    return torch.tensor([e["target"] for e in examples]) if all("target" in e for e in examples) else None


def pad_token(base: Base, end: Any = True) -> ModelSetup:
    """Setup that lets the model pad, without a new word in its vocabulary: any will do, since attention masks it.

    end: the end token, if there is one. A decoder that classifies is read at the last token that is not the pad token, so where
    that should be the end token, another one pads.
    """
    processor = base.processor
    if processor.pad_token is not None:
        return ModelSetup({"pad_token_id": processor.pad_token_id})
    known = (processor.eos_token, processor.unk_token) if end else (processor.unk_token, processor.eos_token)
    token = next(filter(None, known), None) or processor.convert_ids_to_tokens(0)
    return ModelSetup({"pad_token_id": processor.convert_tokens_to_ids(token)}, tokenizer={"pad_token": token})
