"""Rows and base models that need nothing but a config: random weights, random words, lengths as real texts have them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = 8_000
SPREAD = 0.5
"""Standard deviation of the logarithm of a text's length: 0.4 to 0.6 in reviews, questions and answers."""


def lengths(mean: int, most: int, count: int, draw: random.Random) -> list[int]:
    """Draw numbers of words with a log-normal distribution of this mean, at most `most`."""
    middle = math.log(mean) - SPREAD**2 / 2
    return [max(3, min(most, round(draw.lognormvariate(middle, SPREAD)))) for _ in range(count)]


def words(count: int, draw: random.Random) -> list[str]:
    """Draw words, frequent ones more often, as in a language."""
    return [f"w{min(WORDS - 1, int(WORDS ** draw.random()))}" for _ in range(count)]


def labelled(mean: int, most: int, count: int) -> list[dict[str, Any]]:
    """Make texts with a label that a word at a random place tells."""
    draw, rows = random.Random(0), []
    for length in lengths(mean, most, count, draw):
        label, text = draw.choice(("negative", "positive")), words(length, draw)
        text[draw.randrange(length)] = label
        rows.append({"text": " ".join(text), "label": label})
    return rows


def answered(count: int, prompt: int = 100, completion: int = 160) -> list[dict[str, Any]]:
    """Make prompts and completions; a completion repeats words of its prompt, which can be learnt."""
    draw, rows = random.Random(0), []
    for first, second in zip(lengths(prompt, 300, count, draw), lengths(completion, 500, count, draw), strict=True):
        asked = words(first, draw)
        rows.append({"prompt": " ".join(asked) + " ", "completion": " ".join(draw.choice(asked) for _ in range(second))})
    return rows


def write(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Write rows as train, and some again as validation, which nothing is decided by."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("train", rows), ("validation", rows[:16])):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in chosen)
    return folder


def tokenizer(frame: bool, most: int) -> Any:
    """Make a tokenizer in which a word is a token; frame: [CLS] before and [SEP] behind a text."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[CLS]", "eos_token": "[SEP]"}
    special |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"} if frame else {}
    known = [*dict.fromkeys(special.values()), "negative", "positive", *(f"w{number}" for number in range(WORDS))]
    raw = tokenizers.Tokenizer(models.WordLevel({word: index for index, word in enumerate(known)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if frame:
        raw.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
            special_tokens=[(name, known.index(name)) for name in ("[CLS]", "[SEP]")])
    return PreTrainedTokenizerFast(tokenizer_object=raw, model_max_length=most, **special)


def bert(folder: Path, **sizes: int) -> None:
    """Make a BERT; default sizes are bert-base's."""
    from transformers import BertConfig, BertModel

    own = tokenizer(True, 512)
    BertModel(BertConfig(vocab_size=len(own), pad_token_id=own.pad_token_id, **sizes)).save_pretrained(folder)
    own.save_pretrained(folder)


def llama(folder: Path, **sizes: int) -> None:
    """Make a Llama in bf16; default sizes are those of Llama 3.2 1B, but for the vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    own = tokenizer(False, 2048)
    billion = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
               "num_key_value_heads": 8}
    config = LlamaConfig(vocab_size=len(own), max_position_embeddings=2048, tie_word_embeddings=True,
                         pad_token_id=own.pad_token_id, bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id,
                         **(sizes or billion))
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    own.save_pretrained(folder)


TINY_BERT = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY_LLAMA = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
BASES: dict[str, Callable[[Path], None]] = {
    "bert-base": bert, "bert-tiny": lambda folder: bert(folder, **TINY_BERT),
    "llama-1b": llama, "llama-tiny": lambda folder: llama(folder, **TINY_LLAMA),
}


def base(name: str, cache: Path) -> Path:
    """Return the folder of a base model, made once."""
    import torch

    folder = cache / "bases" / name
    if not (folder / "config.json").is_file():
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        BASES[name](folder)
    return folder


def product_parameters(folder: Path) -> int:
    """Return the parameters that a token is multiplied with: all but the embeddings."""
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names = [key for key in file.keys() if "embed" not in key]  # noqa: SIM118 (safe_open is no dict)
            count += sum(math.prod(file.get_slice(key).get_shape()) for key in names)
    return count
