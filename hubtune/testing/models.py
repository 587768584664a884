"""Tiny pretrained models with tokenizers, made in a second and without a network: what plugins are tested on."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hubtune.testing.fixtures import fixture_for

LENGTH = 128
"""Tokens that a tiny model takes."""
WORDS = 400
"""Entries of a vocabulary at most, beside the bytes of those that spell in bytes."""
TEXTS = (
    "What a lovely day, and what a good walk along the river!", "The kettle broke after two weeks. Never again.",
    "It is a chair: four legs, one seat, grey.", "Best soup in town; the waiter was kind and quick.",
    "The screen flickers, the sound is bad and nobody answers my mails.", "The parcel came on Tuesday.",
    "I would buy these shoes again at once.", "Cold food, rude staff, and a bill that was wrong.",
    "The hotel has 40 rooms and stands near the station.", "My children loved every minute of the film.",
    "A waste of money: the battery was empty by noon.", "The book has 312 pages and a blue cover.",
)
"""Text that vocabularies are built from when nothing else is given."""


@dataclass(frozen=True)
class Family:
    """Sizes of a tiny model of one type. `special`: the tokenizer's own words, in the order of their ids.

    single, pair: how texts are framed, as the `tokenizers` library writes templates; empty: not at all.
    bytes: spells in bytes, else in lower-case words. left: pads on the left. types: tells a pair's texts apart.
    """

    config: str
    model: str
    sizes: dict[str, Any]
    special: dict[str, str]
    single: str = ""
    pair: str = ""
    bytes: bool = False
    left: bool = False
    types: bool = False
    more: dict[str, Any] = field(default_factory=dict)


_BERT = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_ROBERTA = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>", "cls": "<s>", "sep": "</s>"}
_FRAME = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
_ENCODER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": LENGTH,
}
_BART = {
    f"{side}_{name}": size for side in ("encoder", "decoder")
    for name, size in {"layers": 2, "attention_heads": 4, "ffn_dim": 64}.items()
}

FAMILIES = {
    "bert": Family("BertConfig", "BertModel", _ENCODER, _BERT, *_FRAME, types=True),
    "distilbert": Family(
        "DistilBertConfig", "DistilBertForMaskedLM",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": LENGTH}, _BERT, *_FRAME,
    ),
    "roberta": Family(
        "RobertaConfig", "RobertaForMaskedLM",
        {**_ENCODER, "max_position_embeddings": LENGTH + 2, "type_vocab_size": 1},  # it counts on from the pad's id
        _ROBERTA, "<s> $A </s>", "<s> $A </s> </s> $B </s>", bytes=True,
    ),
    "modernbert": Family(
        "ModernBertConfig", "ModernBertForMaskedLM",
        {**_ENCODER, "local_attention": 32, "global_attn_every_n_layers": 2}, _BERT, *_FRAME, bytes=True,
    ),
    "deberta-v2": Family(
        "DebertaV2Config", "DebertaV2ForMaskedLM",
        {**_ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 32,
         "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0},
        _BERT, *_FRAME, types=True,
    ),
    "gpt2": Family(  # no pad token, and nothing around a text: as it is on the Hub
        "GPT2Config", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH},
        {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "unk": "<|endoftext|>"}, bytes=True,
    ),
    "llama": Family(
        "LlamaConfig", "LlamaForCausalLM", {**_ENCODER, "num_key_value_heads": 2},
        {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}, "<s> $A", "<s> $A <s> $B", bytes=True,
    ),
    "t5": Family(
        "T5Config", "T5ForConditionalGeneration",
        {"d_model": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4, "d_ff": 64, "d_kv": 8,
         "decoder_start_token_id": 0},
        {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}, "$A </s>", "$A </s> $B </s>", bytes=True,
    ),
    "bart": Family(
        "BartConfig", "BartForConditionalGeneration",
        {"d_model": 32, **_BART, "max_position_embeddings": LENGTH, "decoder_start_token_id": 2,
         "forced_eos_token_id": 2},
        _ROBERTA, "<s> $A </s>", "<s> $A </s> </s> $B </s>", bytes=True,
    ),
    "xlnet": Family(
        "XLNetConfig", "XLNetLMHeadModel", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64},
        {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "cls": "<cls>", "sep": "<sep>", "pad": "<pad>", "mask": "<mask>"},
        "$A <sep> <cls>:2", "$A <sep> $B:1 <sep>:1 <cls>:2", bytes=True, left=True, types=True,
        more={"pad_token_type_id": 3},
    ),
}

MODEL_TYPES = tuple(FAMILIES)
"""The model types for text that `tiny_model` makes; those for images and sound are in `vision` and `sound`."""
PREFERRED = {
    "AutoModelForCausalLM": "llama", "AutoModelForSeq2SeqLM": "bart", "AutoModelForImageClassification": "vit",
    "AutoModelForObjectDetection": "yolos", "AutoModelForSemanticSegmentation": "segformer",
    "AutoModelForAudioClassification": "hubert", "AutoModelForCTC": "hubert",
    "AutoModelForSpeechSeq2Seq": "whisper", "AutoModelForImageTextToText": "idefics3",
}
"""The type that a task is tested on first, by the class of its model; else the first that transformers has."""


def tiny_model(
    model_type: str, folder: str | Path, *, texts: Iterable[str] = TEXTS, seed: int = 0, **config: Any
) -> Path:
    """Make a pretrained model of a few thousand random weights, with its tokenizer, in a folder, and return it.

    model_type: one of `MODEL_TYPES`. texts: what the vocabulary is learnt from. seed: of the weights; the
    generator of the caller is left as it was. config: changes of the configuration, such as
    `hidden_dropout_prob=0.0`. The folder is what the Hub would have: config, safetensors and tokenizer.
    """
    if model_type not in FAMILIES:
        maker = makers().get(model_type)
        if maker is None:
            raise ValueError(f"no tiny model of type '{model_type}'; there are: {', '.join([*FAMILIES, *makers()])}")
        return Path(maker(model_type, folder, seed=seed, **config))
    import torch
    import transformers

    family, folder = FAMILIES[model_type], Path(folder)
    tokenizer = tiny_tokenizer(model_type, texts)
    ids = {
        f"{name}_token_id": found for name in ("bos", "eos", "pad", "cls", "sep")
        if (found := getattr(tokenizer, f"{name}_token_id")) is not None
    }
    sizes = {"vocab_size": len(tokenizer), **ids, **family.sizes, **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, family.model)(getattr(transformers, family.config)(**sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def makers() -> dict[str, Callable[..., Any]]:
    """Return what makes tiny models that see or hear, by their type."""
    found: dict[str, Callable[..., Any]] = {}
    for module, function in (("vision", "tiny_vision"), ("sound", "tiny_sound"),
                             ("vision_language", "tiny_vision_language")):
        if importlib.util.find_spec(f"hubtune.testing.{module}"):
            made = importlib.import_module(f"hubtune.testing.{module}")
            found |= dict.fromkeys([*made.MODEL_TYPES, *getattr(made, "WRITING_TYPES", ())], getattr(made, function))
    return found


def tiny_for(
    task: Any, folder: str | Path, *, rows: Iterable[Any] | None = None, model_type: str | None = None, seed: int = 0
) -> Path:
    """Make a tiny model that a task fits (a `Task`, or its class), in a folder, and return it.

    rows: what a vocabulary is learnt from; default: the task's own sample. model_type: none: the first that fits.
    """
    import transformers

    if model_type is None:
        types = set(getattr(transformers, task.model)._model_mapping._model_mapping)  # by name: nothing is imported
        candidates = [PREFERRED.get(task.model, ""), *(FAMILIES if task.processor == "AutoTokenizer" else makers())]
        model_type = next((name for name in candidates if name in types), None)
        if model_type is None:
            raise ValueError(f"no tiny model fits {task.model} with {task.processor}: name one, or give a folder.")
    if model_type not in FAMILIES:
        return tiny_model(model_type, folder, seed=seed)
    if rows is None:
        made = task() if isinstance(task, type) else task
        rows = fixture_for(made).sample(made, 16)
    return tiny_model(model_type, folder, texts=list(strings(rows)) or TEXTS, seed=seed)


def strings(value: Any) -> Iterable[str]:
    """Every string in nested rows, the values of dicts only."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, Iterable) and not isinstance(value, bytes) and not hasattr(value, "__array__"):
        for item in value:
            yield from strings(item)


def tiny_tokenizer(model_type: str, texts: Iterable[str] = TEXTS) -> Any:
    """A fast tokenizer with the special tokens and the frame of its model type: a `PreTrainedTokenizerFast`."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[model_type]
    special = list(dict.fromkeys(family.special.values()))
    if family.bytes:
        raw = tokenizers.Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=WORDS + len(alphabet), special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        raw.train_from_iterator(texts, trainer)
    else:
        plain = normalizers.BertNormalizer(lowercase=True)
        words = Counter(re.findall(r"\w+|[^\w\s]", plain.normalize_str(" ".join(texts))))
        raw = tokenizers.Tokenizer(models.WordPiece(word_pieces(words, special), unk_token=family.special["unk"]))
        raw.add_special_tokens(special)
        raw.normalizer = plain
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        raw.decoder = decoders.WordPiece()
    if family.single:
        used = [word for word in special if word in f"{family.single} {family.pair}"]
        raw.post_processor = processors.TemplateProcessing(
            single=family.single, pair=family.pair, special_tokens=[(word, raw.token_to_id(word)) for word in used]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=LENGTH, padding_side="left" if family.left else "right",
        model_input_names=["input_ids", *(["token_type_ids"] if family.types else []), "attention_mask"],
        **{f"{name}_token": word for name, word in family.special.items()}, **family.more,
    )


def word_pieces(words: Mapping[str, int], special: Iterable[str]) -> dict[str, int]:
    """Ids of letters and of frequent words. Not by the library's trainer, whose vocabulary differs from run to run."""
    letters = sorted(set("".join(words)))
    frequent = sorted((word for word in words if len(word) > 1), key=lambda word: (-words[word], word))
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *frequent]
    return {piece: number for number, piece in enumerate(pieces[:WORDS])}
